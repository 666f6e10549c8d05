"""Which API keys open the API: those of the settings, and the database's, read again each `FRESH_S` by each replica.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.api.errors import UnauthorizedError, UnavailableError
from serve_app.storage.api_keys import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.storage.api_keys import KeyStore

FRESH_S = 2.0
"""A new key works, and a revoked one does not, after so long at the latest."""
LOOK_S = 1.0
"""A request has five seconds in all, and the job table may take four of them."""
RETRY_AFTER_S = 5
log = logs.get_logger("api")


class KeyRing:
    """The keys of the settings, and the database's as of at most `FRESH_S` ago."""

    def __init__(self, fixed: Sequence[str], store: KeyStore) -> None:
        self._fixed = tuple(bytes.fromhex(text) for text in fixed)
        self._store = store
        self._stored: tuple[bytes, ...] | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()

    async def check(self, authorization: str) -> str:
        """Return the digest of the key that a request carries. Raises `UnauthorizedError`, `UnavailableError`."""
        scheme, _, key = authorization.partition(" ")
        given = digest(key.strip())
        stored = await self._fresh()
        known = [hmac.compare_digest(given, wanted) for wanted in (*self._fixed, *(stored or ()))]  # each, always
        if scheme.lower() == "bearer" and any(known):
            return given.hex()
        if scheme.lower() == "bearer" and stored is None:
            raise UnavailableError(retry_after_s=RETRY_AFTER_S)  # it may be a good one
        raise UnauthorizedError

    async def _fresh(self) -> tuple[bytes, ...] | None:
        """Return the database's digests, the last known ones while it is away, None where it was never reached."""
        async with self._turn:
            if time.monotonic() - self._looked_at > FRESH_S:
                try:
                    async with asyncio.timeout(LOOK_S):
                        self._stored = await asyncio.to_thread(self._store.digests)
                except (SQLAlchemyError, TimeoutError) as error:
                    log.warning("the API keys could not be looked up", extra={"error": type(error).__name__})
                self._looked_at = time.monotonic()
            return self._stored
