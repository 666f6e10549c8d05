"""Which headers a caller may add to its job's callbacks: such as a token for the gateway before its backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST: Final = 8
LONGEST_NAME, LONGEST_VALUE = 64, 2048

OURS: Final = frozenset(("content-type", "content-length", "content-encoding", "host", "user-agent", "date", "expect"))
"""Set by this server or its HTTP client."""
HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer")
) | {"transfer-encoding", "upgrade"}
"""Of the connection and not of the message (RFC 9110, section 7.6.1)."""
OUR_PREFIXES: Final = ("webhook-", "x-ml-")

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


def checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names. Raises ValueError, which never repeats a value."""
    if len(headers) > MOST:
        raise ValueError(f"callback_headers has more than {MOST} headers")
    lowered = {name.lower(): value for name, value in headers.items()}
    if len(lowered) < len(headers):
        raise ValueError("callback_headers has a name twice")
    for name, value in lowered.items():
        if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
            raise ValueError("callback_headers has a name that HTTP does not allow")
        if name in OURS | HOP_BY_HOP or name.startswith(OUR_PREFIXES):
            raise ValueError(f"callback_headers may not set {name}")
        if len(value) > LONGEST_VALUE or not _VALUE.fullmatch(value):
            raise ValueError(f"callback_headers has a value that HTTP does not allow, of {name}")
    return lowered
