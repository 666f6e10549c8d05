"""The metrics of jobs and callbacks, which the manager that works reads from the database.

Job actors count nothing: each is a process of its own, so that every job would be a series, and ends before Ray has
collected what it counted. What they do is in the timeline, and is counted from there; their progress callbacks they
report to the manager (`serve_app/callbacks/progress_tally.py`). Blocking: call it from a thread.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from serve_app.jobs.job import CallbackState
from serve_app.jobs.states import JobState
from serve_app.observability import metrics
from serve_app.storage.tables import callbacks, events, jobs, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Row

    from serve_app.settings import Limits
    from serve_app.storage.database import Database

EVERY_S = 5.0
EVENTS_READ = 500
"""The newest events that are read each time; ten jobs that end each second make a third of it."""
EVENTS_REMEMBERED = 4 * EVENTS_READ
CALLBACK_OUTCOMES = {
    EventKind.CALLBACK_DELIVERED: "delivered",
    EventKind.CALLBACK_FAILED: "to_be_retried",
    EventKind.CALLBACK_UNDELIVERED: "given_up",
}
COUNTED_EVENTS = (EventKind.STARTED, EventKind.COMPLETED, EventKind.FAILED, *CALLBACK_OUTCOMES)


class JobMetrics:
    """Set the gauges from the tables, and count each event of the timeline once."""

    def __init__(self, database: Database, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._limits = limits
        self._clock = clock
        self._since: float | None = None
        """Older events are not counted; None before the first collection."""
        self._known: dict[tuple[int, float], None] = {}
        """Events that have been counted, by id and time: SQLite gives the ids of deleted rows to new ones."""
        counters = (metrics.JOBS_ENDED, metrics.CALLBACK_TRIES, metrics.VIDEO_S, metrics.PROCESSING_S)
        for counter in (*counters, metrics.DROPPED_TEXTS, metrics.PROGRESS_TRIES):
            counter.begin()

    def collect(self) -> None:
        """Read the database and record what is new. Events before the first collection are not counted."""
        with self._db.read() as db:
            self._set_gauges(db)
            for event in self._new_events(db):
                self._count(db, event)
                self._known[event.id, event.at] = None
        for key in list(self._known)[:-EVENTS_REMEMBERED]:
            del self._known[key]
        metrics.MANAGER_SEEN_S.set(self._clock())

    def clear(self) -> None:
        """Set the gauges to 0 and stop counting until the next collection: another manager works now."""
        for gauge in (metrics.OLDEST_QUEUED_S, metrics.PENDING_CALLBACKS, metrics.OLDEST_CALLBACK_S):
            gauge.set(0)
        for state in JobState:
            metrics.JOBS.set(0, state=state)
        self._since = None

    def _set_gauges(self, db: Connection) -> None:
        by_state = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        counts: dict[str, int] = {row[0]: row[1] for row in db.execute(by_state)}
        for state in JobState:
            metrics.JOBS.set(counts.get(state, 0), state=state)
        metrics.JOBS_LIMIT.set(self._limits.running_jobs, state=JobState.RUNNING)
        metrics.JOBS_LIMIT.set(self._limits.queued_jobs, state=JobState.QUEUED)
        first = db.execute(select(func.min(jobs.c.queued_at)).where(jobs.c.state == JobState.QUEUED)).scalar()
        metrics.OLDEST_QUEUED_S.set(self._age_s(first))
        pending = select(func.count(), func.min(callbacks.c.due_since)).where(
            callbacks.c.state == CallbackState.PENDING
        )
        count, since = db.execute(pending).one()
        metrics.PENDING_CALLBACKS.set(count)
        metrics.OLDEST_CALLBACK_S.set(self._age_s(since))

    def _age_s(self, since: float | None) -> float:
        return 0.0 if since is None else max(0.0, self._clock() - since)

    def _new_events(self, db: Connection) -> Sequence[Row[Any]]:
        """Return events that are not counted yet, oldest first. They may be committed in another order than begun."""
        query = select(events).where(events.c.kind.in_(COUNTED_EVENTS)).order_by(events.c.id.desc()).limit(EVENTS_READ)
        newest = db.execute(query).all()[::-1]
        if self._since is None:
            self._since = self._clock()
            self._known |= {(event.id, event.at): None for event in newest}
        since = self._since = min(self._since, self._clock())  # a clock that is set back moves the limit
        return [event for event in newest if event.at >= since and (event.id, event.at) not in self._known]

    def _count(self, db: Connection, event: Row[Any]) -> None:
        kind = EventKind(event.kind)
        if kind in CALLBACK_OUTCOMES:
            error = (event.detail or "").partition(": ")[2]
            metrics.CALLBACK_TRIES.inc(outcome=CALLBACK_OUTCOMES[kind], fault=metrics.fault_class(error))
        elif kind is EventKind.STARTED:
            run = select(jobs.c.queued_at).where(jobs.c.job_id == event.job_id, jobs.c.run == event.run)
            if (queued_at := db.execute(run).scalar()) is not None:
                metrics.QUEUE_WAIT_S.observe(max(0.0, event.at - queued_at))
        else:
            metrics.JOBS_ENDED.inc(state=kind.value, code=event.detail or metrics.NO_CODE)
            if kind is EventKind.COMPLETED:
                self._count_work(db, event.job_id)

    def _count_work(self, db: Connection, job_id: str) -> None:
        """Record how long a completed job took, by stage, and which texts its result leaves out."""
        found = db.execute(select(results).where(results.c.job_id == job_id)).one_or_none()
        if found is None or not found.duration_s:
            return
        metrics.VIDEO_S.inc(found.duration_s)
        metrics.PROCESSING_S.inc(found.processing_s)
        metrics.REAL_TIME_FACTOR.observe(found.processing_s / found.duration_s)
        metadata = json.loads(found.body).get("metadata", {})
        for stage, seconds in metadata.get("stages", {}).items():
            metrics.STAGE_S.observe(seconds, stage=stage)
        for warning in metadata.get("warning_codes", ()):
            if by := metrics.DROPPED_BY.get(warning["code"]):
                metrics.DROPPED_TEXTS.inc(warning["count"], by=by)
