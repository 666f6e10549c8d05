"""What to do when the machine's clock is set back: plans that lie in the future by mistake are brought back.

Plans are epoch seconds: the next try of a callback, the last telling of a waiting job, the order of the queue. A clock
that is set forward makes them due early, which harms nobody; one that is set back would make them wait.
Blocking: call it from a thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import update

from serve_app.callbacks.retry_schedule import MINUTE_S
from serve_app.jobs.job import CallbackState
from serve_app.jobs.states import JobState
from serve_app.storage.tables import callbacks, jobs, receivers

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column

    from serve_app.storage.database import Database

NOTICED_S = 2.0
"""Smaller steps are corrections of a clock that runs, and cost nobody more than they are."""
LONGEST_WAIT_AT_START_S = 5 * MINUTE_S


class WallClock:
    """Notices when the clock is set back, by a clock that nobody sets."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._offset_s = wall() - steady()

    def set_back_s(self) -> float:
        """By how much, since it was last asked."""
        before, self._offset_s = self._offset_s, self._wall() - self._steady()
        back_s = before - self._offset_s
        return back_s if back_s > NOTICED_S else 0.0


def bring_back(database: Database, by_s: float, clock: Callable[[], float] = time.time) -> None:
    """Move what was planned by the clock of before to where it belongs by that of now."""
    now = clock()

    def earlier(time_: Column[float]) -> dict[str, object]:
        return {time_.name: time_ - by_s}

    with database.write(admission=True) as db:
        for time_ in (callbacks.c.next_try_at, callbacks.c.due_since):
            pending = callbacks.c.state == CallbackState.PENDING
            db.execute(update(callbacks).where(pending, time_ > now).values(**earlier(time_)))
        db.execute(
            update(receivers).where(receivers.c.next_probe_at > now).values(**earlier(receivers.c.next_probe_at))
        )
        for time_ in (jobs.c.queued_at, jobs.c.told_at):
            alive = jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
            db.execute(update(jobs).where(alive, time_ > now).values(**earlier(time_)))


def plan_anew(database: Database, clock: Callable[[], float] = time.time) -> None:
    """At the start, when nobody knows what the clock did meanwhile: no callback waits longer than five minutes."""
    latest = clock() + LONGEST_WAIT_AT_START_S
    too_late = (callbacks.c.state == CallbackState.PENDING, callbacks.c.next_try_at > latest)
    with database.write(admission=True) as db:
        db.execute(update(callbacks).where(*too_late).values(next_try_at=latest))
