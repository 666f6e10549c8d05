"""API keys: added, listed and revoked by name. Of a key only its SHA-256 is stored.

A key is 256 random bits, so a slower hash would not make it harder to guess. Blocking: call it from a thread.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from serve_app.storage.tables import api_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.storage.database import Database

PREFIX = "mls_"
"""So that a scanner for leaked secrets can tell one."""
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyNameError(ValueError):
    """The name is taken or malformed; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """What may be shown of a key."""

    name: str
    created_at: float


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key, which is what is stored of it."""
    return hashlib.sha256(key.encode()).digest()


class KeyStore:
    """The keys in the database. There may be several at once, so that a new one can replace an old one."""

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
        """Return all keys, the oldest first."""
        query = select(api_keys.c.name, api_keys.c.created_at).order_by(api_keys.c.created_at, api_keys.c.name)
        with self._db.read() as db:
            return [KeyView(name=row.name, created_at=row.created_at) for row in db.execute(query)]

    def revoke(self, name: str) -> bool:
        """Delete a key; False where there is none of this name."""
        with self._db.write() as db:
            return db.execute(delete(api_keys).where(api_keys.c.name == name)).rowcount > 0

    def digests(self) -> tuple[bytes, ...]:
        """Return the digests of all keys."""
        with self._db.read() as db:
            return tuple(bytes.fromhex(text) for text in db.execute(select(api_keys.c.digest)).scalars())
