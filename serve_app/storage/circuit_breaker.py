"""Receivers that keep failing, over all senders: one try each 30 s probes such a receiver, all others wait.

Ends and progress are counted apart, so that a backend that refuses progress still gets an end at once.
Blocking: call it from a thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.storage.tables import receivers

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.storage.database import Database

BREAKER_FAILURES = 5
"""Failures in a row after which a receiver is only probed."""
PROBE_EVERY_S = 30.0
PROGRESS = "#progress"
"""Suffix of an origin: the row that counts the failures of progress callbacks there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The answer to a sender that wants to try a receiver."""

    granted: bool
    retry_at: float = 0.0
    """Where it is not granted: the epoch second from which the next probe may be taken."""


class CircuitBreaker:
    """Grants tries of receivers, named by their origin, and records how the tries went."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._clock = clock

    def acquire(self, origin: str) -> Permit:
        """Ask to send the end of a job. A permit for a failing receiver takes the probe of this half minute."""
        return self._acquire(origin)

    def acquire_for_progress(self, origin: str) -> bool:
        """Ask to send progress. Where ends fail, a probe is granted only if no end has taken it for `PROBE_EVERY_S`."""
        return self._acquire(origin + PROGRESS).granted and self._acquire(origin, unused_s=PROBE_EVERY_S).granted

    def _acquire(self, receiver: str, *, unused_s: float = 0.0) -> Permit:
        """`unused_s`: how long a probe must have been free to be granted."""
        now = self._clock()
        with self._db.read() as db:
            row = db.execute(select(receivers).where(receivers.c.origin == receiver)).mappings().one_or_none()
        if row is None or row["failures"] < BREAKER_FAILURES:
            return Permit(granted=True)
        if row["next_probe_at"] + unused_s > now:
            return Permit(granted=False, retry_at=row["next_probe_at"])
        free = (receivers.c.origin == receiver, receivers.c.next_probe_at + unused_s <= now)
        with self._db.write() as db:
            taken = db.execute(update(receivers).where(*free).values(next_probe_at=now + PROBE_EVERY_S)).rowcount
        return Permit(granted=True) if taken else Permit(granted=False, retry_at=now + PROBE_EVERY_S)

    def record_success(self, origin: str) -> None:
        """Forget the failures of a receiver: it has taken a callback, of whichever kind."""
        either = receivers.c.origin.in_((origin, origin + PROGRESS))
        with self._db.read() as db:
            if db.execute(select(receivers.c.origin).where(either)).first() is None:
                return
        with self._db.write() as db:
            db.execute(delete(receivers).where(either))

    def record_failure(self, origin: str, *, progress: bool = False) -> None:
        """Count a failed try, of a progress callback or of an end."""
        next_probe_at = self._clock() + PROBE_EVERY_S
        first = {"origin": origin + (PROGRESS if progress else ""), "failures": 1, "next_probe_at": next_probe_at}
        again = {"failures": receivers.c.failures + 1, "next_probe_at": next_probe_at}
        with self._db.write() as db:
            upsert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
            row = upsert(receivers).values(**first)
            db.execute(row.on_conflict_do_update(index_elements=[receivers.c.origin], set_=again))
