"""Verifies signatures of callbacks (Standard Webhooks 1.0)."""

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
"""The most by which a signature's time may differ from this machine's, in either direction."""
SHORTEST_KEY_BYTES = 16
LONGEST_NUMBER = 20


def key_of(secret: str) -> bytes:
    """Return the bytes of a `whsec_…` secret. Raises ValueError if it is invalid or too short."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is base64, with or without whsec_ before it") from error
    if len(key) < SHORTEST_KEY_BYTES:
        raise ValueError(f"a webhook secret has at least {SHORTEST_KEY_BYTES} bytes")
    return key


def number(text: str) -> int | None:
    """Return the number in a header's text; None if it is no number or has too many digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < LONGEST_NUMBER else None


def verify(body: bytes, headers: Mapping[str, str], keys: Sequence[bytes], *, now_s: float | None = None) -> None:
    """Check that one of `keys` signed these exact bytes within `TOLERANCE_S`. Raises `ForgedCallbackError`.

    Args:
        body: The request's body, before any parsing.
        headers: Those of the request, with lower-case names.
        keys: One, or two during a rotation.
        now_s: Epoch seconds; default: now.
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
