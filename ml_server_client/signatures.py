"""Standard Webhooks 1.0: whether a callback comes from who has the secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from typing import TYPE_CHECKING

from ml_server_client.errors import ForgedCallbackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOLERANCE_S = 300
"""How old a signature may be, and how far ahead the sender's clock."""
SHORTEST_KEY_BYTES = 16
LONGEST_NUMBER = 20


def key_of(secret: str) -> bytes:
    """The bytes of a `whsec_…` secret. Raises ValueError where it is none, an empty one above all."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is base64, with or without whsec_ before it") from error
    if len(key) < SHORTEST_KEY_BYTES:
        raise ValueError(f"a webhook secret has at least {SHORTEST_KEY_BYTES} bytes")
    return key


def number(text: str) -> int | None:
    """The number that a header is to hold, or None; of what nobody sane sends, too."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < LONGEST_NUMBER else None


def verify(body: bytes, headers: Mapping[str, str], keys: Sequence[bytes], *, now_s: float | None = None) -> None:
    """Check that one of `keys` signed these exact bytes, lately. Raises `ForgedCallbackError`.

    Args:
        body: As it came in, before any parsing.
        headers: With lower-case names.
        keys: One, or two during a rotation.
        now_s: Epoch seconds; the clock's by default.
    """
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signed_s = number(timestamp)
    if signed_s is None:
        raise ForgedCallbackError("the callback is not signed")
    if abs((time.time() if now_s is None else now_s) - signed_s) > TOLERANCE_S:
        raise ForgedCallbackError("the callback's signature is too old, or a clock is wrong")
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    for entry in headers.get("webhook-signature", "").split():
        version, _, given = entry.partition(",")
        if version == "v1" and any(hmac.compare_digest(given.encode(), each) for each in expected):
            return
    raise ForgedCallbackError("the callback's signature does not fit")
