"""Repairs planned times after the machine's clock was set back, so that nothing waits too long.

Planned times are epoch seconds: the next try of a callback, the last heartbeat of a waiting job, the order of the
queue. A clock that is set forward makes them due early, which does no harm. Blocking: call it from a thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import true, update

from serve_app.jobs.job import CallbackState
from serve_app.storage.tables import callbacks, has_not_ended, jobs, receivers

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.storage.database import Database

NOTICED_S = 2.0
"""Smaller steps are corrections of a running clock; the waits that they cost are as small."""
LONGEST_WAIT_AT_START_S = 300.0


class ClockJumpDetector:
    """Notices that the wall clock was set back, by comparing it with the monotonic one."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._offset_s = wall() - steady()

    def set_back_s(self) -> float:
        """Return by how many seconds the clock was set back since the last call, 0 for less than `NOTICED_S`."""
        before, self._offset_s = self._offset_s, self._wall() - self._steady()
        back_s = before - self._offset_s
        return back_s if back_s > NOTICED_S else 0.0


def shift_back(database: Database, by_s: float, clock: Callable[[], float] = time.time) -> None:
    """Move all planned times that lie in the future `by_s` seconds back."""
    now = clock()
    pending = callbacks.c.state == CallbackState.PENDING
    planned = (
        (jobs, has_not_ended, ("queued_at", "told_at")),
        (callbacks, pending, ("next_try_at", "due_since")),
        (receivers, true(), ("next_probe_at",)),
    )
    with database.write(admission=True) as db:
        for table, condition, columns in planned:
            for name in columns:
                time_ = table.c[name]
                db.execute(update(table).where(condition, time_ > now).values({name: time_ - by_s}))


def shorten_waits(database: Database, clock: Callable[[], float] = time.time) -> None:
    """Have no callback wait longer than five minutes: at a start it is not known how the clock was set before."""
    latest = clock() + LONGEST_WAIT_AT_START_S
    too_late = (callbacks.c.state == CallbackState.PENDING, callbacks.c.next_try_at > latest)
    with database.write(admission=True) as db:
        db.execute(update(callbacks).where(*too_late).values(next_try_at=latest))
