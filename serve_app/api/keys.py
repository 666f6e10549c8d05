"""API keys: made, listed and revoked in the database, known to every ingress replica within `FRESH_S`.

Of a key only the SHA-256 is kept: it is 256 bits of chance, so nothing slower would make it harder to guess.
Knows nothing of HTTP. `KeyStore` blocks: call it from a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from deployments import logs
from serve_app.api.errors import UnauthorizedError, UnavailableError
from serve_app.storage.tables import api_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.storage.database import Database

PREFIX = "mls_"
"""So that a scanner for leaked secrets can tell one."""
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FRESH_S = 2.0
"""A new key works, and a revoked one does not, after so long at the latest."""
LOOK_S = 1.0
"""A request has five seconds in all, and the job table may take four of them."""
RETRY_AFTER_S = 5
log = logs.get_logger("api")


class KeyNameError(ValueError):
    """The name is taken, or is none; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """What may be told of a key."""

    name: str
    created_at: float


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


class KeyStore:
    """The keys in the database: as many at once as have names, so that one can follow another."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, name: str) -> str:
        """Make a key and return it, for the only time. Raises `KeyNameError`."""
        if not NAME.fullmatch(name):
            raise KeyNameError("a key's name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit")
        key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        row = {"name": name, "digest": digest(key).hex(), "created_at": time.time()}
        try:
            with self._db.write() as db:
                db.execute(insert(api_keys).values(**row))
        except IntegrityError as taken:
            raise KeyNameError(f"there is a key named {name} already: revoke it, or choose another name") from taken
        return key

    def list(self) -> Sequence[KeyView]:
        """All keys, the oldest first."""
        query = select(api_keys.c.name, api_keys.c.created_at).order_by(api_keys.c.created_at, api_keys.c.name)
        with self._db.read() as db:
            return [KeyView(name=row.name, created_at=row.created_at) for row in db.execute(query)]

    def revoke(self, name: str) -> bool:
        """Forget a key; False where there is none of this name."""
        with self._db.write() as db:
            return db.execute(delete(api_keys).where(api_keys.c.name == name)).rowcount > 0

    def digests(self) -> tuple[bytes, ...]:
        """What the gate compares with."""
        with self._db.read() as db:
            return tuple(bytes.fromhex(text) for text in db.execute(select(api_keys.c.digest)).scalars())


class KeyRing:
    """The keys that open the gate: those of the settings, and the database's as of `FRESH_S` ago."""

    def __init__(self, fixed: Sequence[str], store: KeyStore) -> None:
        self._fixed = tuple(bytes.fromhex(text) for text in fixed)
        self._store = store
        self._stored: tuple[bytes, ...] | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()

    async def check(self, authorization: str) -> str:
        """Which key it is, as a name that tells nothing. Raises `UnauthorizedError`, `UnavailableError`."""
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
        """The database's keys, or what they were while it is away; None where it was never there."""
        async with self._turn:
            if time.monotonic() - self._looked_at > FRESH_S:
                try:
                    async with asyncio.timeout(LOOK_S):
                        self._stored = await asyncio.to_thread(self._store.digests)
                except (SQLAlchemyError, TimeoutError) as error:
                    log.warning("the API keys could not be looked up", extra={"error": type(error).__name__})
                self._looked_at = time.monotonic()
            return self._stored
