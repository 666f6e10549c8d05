"""The manager's side of the job table, each method in one transaction. Blocking: call it from a thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, case, delete, exists, or_, select, update

from serve_app.jobs.job import CallbackState, Job, Prefetch
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState, check
from serve_app.storage import timeline
from serve_app.storage.job_rows import count_by_state, fetch
from serve_app.storage.server_state import is_draining, note_deletion
from serve_app.storage.tables import callbacks, has_not_ended, jobs
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Select

    from serve_app.storage.database import Database

DRIVER_GRACE_S = 3.0
"""Added to the heartbeat's interval for a running job: its job actor reports by itself."""
PRUNED_AT_ONCE = 10

_SILENT = (
    select(jobs.c.job_id)
    .where(
        has_not_ended,
        or_(
            and_(jobs.c.state == JobState.QUEUED, jobs.c.told_at <= bindparam("queued")),
            and_(jobs.c.state == JobState.RUNNING, jobs.c.told_at <= bindparam("running")),
            jobs.c.told_at > bindparam("future"),
        ),
        jobs.c.callback_url.is_not(None),
    )
    .order_by(jobs.c.told_at)
)
"""Jobs whose last progress callback lies before or after these epoch seconds; made once, as the manager asks often."""
_ONE_SILENT = _SILENT.limit(1)


class JobQueue:
    """Find the jobs that get a slot, are due for a heartbeat, are to be fetched ahead, or are to be deleted."""

    def __init__(self, database: Database, *, running_limit: int, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._running_limit = running_limit
        self._clock = clock

    def admit_jobs(self) -> Sequence[Job]:
        """Give free slots to the jobs that wait longest; return them as they are now."""
        with self._db.read() as db:
            counts = count_by_state(db)
        if not counts.queued or counts.running >= self._running_limit:
            return []
        with self._db.write(admission=True) as db:
            if is_draining(db):
                return []
            free = self._running_limit - count_by_state(db).running
            order = (jobs.c.queued_at, jobs.c.job_id)
            waiting = _all(db, select(jobs).where(jobs.c.state == JobState.QUEUED).order_by(*order).limit(max(0, free)))
            now = self._clock()
            for job in waiting:
                check(job.state, JobState.RUNNING)
                slot = {"state": JobState.RUNNING, "stage": Stage.STARTING, "started_at": now}
                db.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(**slot))
                timeline.record(db, job.job_id, EventKind.STARTED, at=now)
            return [started for job in waiting if (started := fetch(db, job.job_id))]

    def fetch_running_jobs(self) -> Sequence[Job]:
        """Return all jobs that have a slot."""
        with self._db.read() as db:
            return _all(db, select(jobs).where(jobs.c.state == JobState.RUNNING))

    def fetch_unfinished_ids(self) -> Sequence[str]:
        """Return the ids of all jobs that wait or run."""
        with self._db.read() as db:
            return db.execute(select(jobs.c.job_id).where(has_not_ended)).scalars().all()

    def take_due_heartbeats(self, *, since_s: float, limit: int | None = None) -> Sequence[Job]:
        """Return the jobs whose last progress callback was made `since_s` ago, with the number for the next one taken.

        Job actors report running jobs themselves, so these get `DRIVER_GRACE_S` more: one may start, or have died.
        A last callback far in the future was made before the clock was set back.
        """
        now = self._clock()
        times = {"queued": now - since_s, "running": now - since_s - DRIVER_GRACE_S, "future": now + since_s}
        with self._db.read() as db:
            if db.execute(_ONE_SILENT, times).first() is None:
                return []
        with self._db.write(admission=True) as db:
            ids = list(db.execute(_SILENT.limit(limit).with_for_update(), times).scalars())
            db.execute(update(jobs).where(jobs.c.job_id.in_(ids)).values(told_at=now, sequence=jobs.c.sequence + 1))
            return [job for job_id in ids if (job := fetch(db, job_id))]

    def select_jobs_to_prefetch(self, limit: int) -> Sequence[Job]:
        """Return waiting jobs whose audio is not fetched ahead yet, the URL that expires first in front.

        Also those of which it is stored that they are being fetched: the caller knows whether they are.
        """
        waiting = (jobs.c.state == JobState.QUEUED, jobs.c.prefetch.in_((Prefetch.NONE, Prefetch.RUNNING)))
        with self._db.read() as db:
            return _all(db, select(jobs).where(*waiting).order_by(jobs.c.video_expires_at).limit(limit))

    def set_prefetch(self, job: Job, state: Prefetch) -> None:
        """Store how far fetching ahead is, unless a new run has begun. What failed with an older URL has not begun."""
        whose = (jobs.c.job_id == job.job_id, jobs.c.run == job.run, jobs.c.token == job.token)
        with self._db.write() as db:
            same_url = case((jobs.c.video_url == job.video_url, state), else_=Prefetch.NONE)
            new = same_url if state is Prefetch.FAILED else state
            db.execute(update(jobs).where(*whose).values(prefetch=new))

    def reset_prefetch(self) -> None:
        """Have what an earlier manager was fetching fetched again."""
        with self._db.write(admission=True) as db:
            unfinished = (has_not_ended, jobs.c.prefetch == Prefetch.RUNNING)
            db.execute(update(jobs).where(*unfinished).values(prefetch=Prefetch.NONE))

    def delete_old_jobs(self, ended_before: float) -> int:
        """Delete jobs that ended before this epoch second, with their rows in all tables; return how many.

        A job whose callback is pending stays. At most `PRUNED_AT_ONCE` go, so that other writers need not wait long.
        """
        old = jobs.c.finished_at < ended_before  # by the index of ends: what has not ended has none
        pending = exists().where(callbacks.c.job_id == jobs.c.job_id, callbacks.c.state == CallbackState.PENDING)
        query = select(jobs.c.job_id).where(old, ~pending).order_by(jobs.c.finished_at).limit(PRUNED_AT_ONCE)
        with self._db.write(admission=True) as db:
            ids = list(db.execute(query.with_for_update()).scalars())
            note_deletion(db, jobs.c.job_id.in_(ids))
            # `pending` again, now that these rows are locked: a redelivery may just have begun
            deleted = db.execute(delete(jobs).where(jobs.c.job_id.in_(ids), ~pending)).rowcount
        if deleted:
            self._db.forget()
        return deleted


def _all(db: Connection, query: Select[tuple[object, ...]]) -> list[Job]:
    return [Job.of(row) for row in db.execute(query).mappings()]
