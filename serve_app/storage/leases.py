"""Leases by name: how processes agree through the database who works. Blocking: call it from a thread.

No clock of one process is compared with another's. The holder raises a number in a row, its beats; others watch by
their own monotonic clocks how long that number has not changed, and count only the time in which they could write
themselves. So a clock that is set, a machine that sleeps or a database that is away costs no process its lease.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from serve_app.storage.tables import leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection, RowMapping

    from serve_app.storage.database import Database

BEAT_S = 5.0
LEASE_S = 30.0
"""A holder whose beats have not changed for so long is taken for dead. Several beats fit in: one may have to wait."""
LONGEST_STEP_S = 3.0
"""The time between two looks counts for no more: a watcher that was held up itself must not blame the holder."""
PROC = Path("/proc")
DEAD = {"Z", "X"}
"""States of a process that has ended and that its parent has not waited for yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    value: object
    at: float
    unchanged_s: float


class Watch:
    """Measures how long values stay unchanged, in the time in which this process watches them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def unchanged_s(self, key: str, value: object) -> float:
        """Look at a value; return the seconds for which `key` has had it without a change."""
        now = self._clock()
        seen = self._seen.get(key)
        unchanged_s = 0.0
        if seen is not None and seen.value == value:
            unchanged_s = seen.unchanged_s + min(now - seen.at, LONGEST_STEP_S)
        self._seen[key] = _Seen(value=value, at=now, unchanged_s=unchanged_s)
        return unchanged_s

    def forget(self, key: str) -> None:
        """Start to measure one key anew."""
        self._seen.pop(key, None)

    def retain_only(self, keys: Collection[str]) -> None:
        """Forget all others."""
        for key in self._seen.keys() - keys:
            del self._seen[key]

    def reset(self) -> None:
        """Start to measure all keys anew: what kept this process from writing may have kept the others, too."""
        self._seen.clear()


class Lease:
    """A named lease, held by one process at a time."""

    def __init__(self, database: Database, name: str, *, watch: Watch | None = None) -> None:
        self._db = database
        self._name = name
        self._holder = new_holder()
        self._watch = watch or Watch()
        self._left = False
        self._turn = threading.Lock()

    def hold(self) -> bool:
        """Renew the lease, or take it if it is free; return whether it is held now. Raises `SQLAlchemyError`."""
        with self._turn:
            try:
                return not self._left and self._hold()
            except SQLAlchemyError:
                self._watch.reset()
                raise

    def is_held(self, db: Connection) -> bool:
        """Return whether the lease is still this object's, for a transaction that writes only if it is."""
        ours = (leases.c.name == self._name, leases.c.holder == self._holder)
        return db.execute(select(leases.c.name).where(*ours).with_for_update()).first() is not None

    def give_back(self) -> None:
        """Free the lease, so that another process gets it without a wait. This object does not take it again."""
        with self._turn:
            self._left = True
            with self._db.write() as db:
                db.execute(delete(leases).where(leases.c.name == self._name, leases.c.holder == self._holder))

    def _hold(self) -> bool:
        with self._db.read() as db:
            row = db.execute(select(leases).where(leases.c.name == self._name)).mappings().one_or_none()
        if row is None:
            return self._begin()
        if row["holder"] != self._holder and not self._is_free(row):
            return False
        return self._renew(row)

    def _is_free(self, row: RowMapping) -> bool:
        unchanged_s = self._watch.unchanged_s(self._name, (row["holder"], row["beats"]))
        return unchanged_s > LEASE_S or is_gone(row["holder"])

    def _begin(self) -> bool:
        try:
            with self._db.write() as db:
                db.execute(insert(leases).values(name=self._name, holder=self._holder, beats=0))
        except IntegrityError:  # another process was faster
            return False
        return True

    def _renew(self, row: RowMapping) -> bool:
        as_seen = and_(*(leases.c[name] == row[name] for name in ("name", "holder", "beats")))
        ours: dict[str, Any] = {"holder": self._holder, "beats": row["beats"] + 1}
        with self._db.write() as db:
            return db.execute(update(leases).where(as_seen).values(**ours)).rowcount > 0


def new_holder() -> str:
    """Return a name for this process, at most 64 characters, different at each call."""
    mark = uuid.uuid4().hex[:12]
    try:
        return f"{_machine()}.{os.getpid()}.{_process(os.getpid())[1]}.{mark}"
    except OSError:  # no Linux
        return mark


def is_gone(holder: str) -> bool:
    """Return whether the holder's process has certainly ended."""
    machine, _, rest = holder.partition(".")
    try:
        if not rest or machine != _machine():
            return False
        pid, started, _ = rest.split(".")
        with suppress(PermissionError):  # another user's: it exists
            os.kill(int(pid), 0)
        state, started_now = _process(int(pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return state in DEAD or started_now != started


def _machine() -> str:
    """Identify the machine, its boot and the container: process numbers are unique only within these."""
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    namespace = (PROC / "self/ns/pid").readlink()
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _process(pid: int) -> tuple[str, str]:
    """Return a process's state, and its start in ticks since boot: a number is used again, but not with that start."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
