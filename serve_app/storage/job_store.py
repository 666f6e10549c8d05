"""The HTTP edge's side of the job table: submit, look up, cancel, delete. Each method is one transaction.

Blocking: call it from a thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, func, insert, or_, select, update

from serve_app.jobs.job import CallbackState, Counts, Job, NewJob, Outcome, Prefetch
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState, check
from serve_app.storage import timeline
from serve_app.storage.job_list import JobList
from serve_app.storage.job_rows import count, count_by_state, end_run, fetch
from serve_app.storage.server_state import deleted_sequence, is_draining, note_deletion
from serve_app.storage.tables import callbacks, checkpoints, has_ended, jobs, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from serve_app.settings import Limits
    from serve_app.storage.database import Database
    from serve_app.storage.job_rows import EndBody

RATE_SAMPLE = 20
"""How many of the newest completed jobs the estimate of processing time looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The result of a POST."""

    job: Job | None
    """The job as it is now; None where the queue is full, or the server drains."""
    started: bool = False
    """This POST began a run."""
    conflict: bool = False
    """The id is known with other content."""
    draining: bool = False
    """The server is about to stop, and takes no new job."""


class JobStore:
    """The jobs, as clients of the API see and change them; `job_list` has many at once."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        end_body: EndBody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self.job_list = JobList(database)
        self._limits = limits
        self._end_body = end_body
        self._clock = clock

    def submit_job(self, new: NewJob) -> Submission:
        """Store a request, or find that its job is known; durable when this returns."""
        with self._db.write(admission=True) as db:
            known = fetch(db, new.job_id, lock=True)
            if known and known.fingerprint != new.fingerprint:
                return Submission(job=known, conflict=True)
            if known and known.state is not JobState.FAILED:
                self._renew_url(db, known, new)
                return Submission(job=known)
            if is_draining(db):
                return Submission(job=None, draining=True)
            counts = count_by_state(db)
            if counts.running + counts.queued >= self._limits.running_jobs + self._limits.queued_jobs:
                return Submission(job=None)
            self._queue(db, known, new)
            return Submission(job=fetch(db, new.job_id), started=True)

    def _queue(self, db: Connection, known: Job | None, new: NewJob) -> None:
        now = self._clock()
        fresh: dict[str, Any] = {
            "state": JobState.QUEUED,
            "attempt": 0,
            "video_url": new.video_url,
            "video_expires_at": new.video_expires_at,
            "callback_url": new.callback_url,
            "options": new.options.model_dump(exclude_none=True),
            "stage": Stage.QUEUED,
            "progress": 0,
            "queued_at": now,
            "told_at": now,
            "started_at": None,
            "finished_at": None,
            "spent_s": 0.0,
            "error_code": None,
            "error_message": None,
            "cancel_requested": False,
            "prefetch": Prefetch.NONE,
        }
        if known:
            check(known.state, JobState.QUEUED)
            db.execute(update(jobs).where(jobs.c.job_id == new.job_id).values(run=known.run + 1, **fresh))
            db.execute(delete(checkpoints).where(checkpoints.c.job_id == new.job_id))
            db.execute(
                update(callbacks)
                .where(callbacks.c.job_id == new.job_id, callbacks.c.state == CallbackState.PENDING)
                .values(state=CallbackState.UNDELIVERED, last_error="a new run began")
            )
        else:
            row = {"job_id": new.job_id, "fingerprint": new.fingerprint, "run": 1, "created_at": now}
            db.execute(insert(jobs).values(**row, **fresh, sequence=deleted_sequence(db)))
        timeline.record(db, new.job_id, EventKind.QUEUED, at=now)

    def _renew_url(self, db: Connection, known: Job, new: NewJob) -> None:
        """Take the newly signed URL of a repeated POST, for a download that is still to come."""
        if not known.state.ended and known.video_url != new.video_url:
            db.execute(
                update(jobs)
                .where(jobs.c.job_id == known.job_id)
                .values(
                    video_url=new.video_url,
                    video_expires_at=new.video_expires_at,
                    prefetch=case((jobs.c.prefetch == Prefetch.FAILED, Prefetch.NONE), else_=jobs.c.prefetch),
                )
            )

    def fetch_job(self, job_id: str) -> Job | None:
        """Return a job, None where there is none of this id."""
        with self._db.read() as db:
            return fetch(db, job_id)

    def fetch_result(self, job_id: str) -> bytes | None:
        """Return a job's result object as JSON, None where there is none."""
        with self._db.read() as db:
            return db.execute(select(results.c.body).where(results.c.job_id == job_id)).scalar()

    def fetch_timeline(self, job_id: str) -> Sequence[timeline.Event]:
        """Return a job's newest events, oldest first."""
        with self._db.read() as db:
            return timeline.fetch(db, job_id)

    def queue_position(self, job: Job) -> int:
        """Return a waiting job's place in the queue, 1 for the next."""
        with self._db.read() as db:
            return _queue_position(db, job)

    def count_jobs(self) -> Counts:
        """Return how many jobs run and wait."""
        with self._db.read() as db:
            return count_by_state(db)

    def estimate_s(self, job: Job | None) -> float | None:
        """Estimate the seconds until `job` is done, or for None until the queue has room; None: nothing to go by.

        In the mean processing time of the newest completed jobs, as many jobs leave the queue as run at once.
        """
        newest = (
            select(results.c.processing_s)
            .join(jobs, jobs.c.job_id == results.c.job_id)
            .order_by(jobs.c.finished_at.desc())
            .limit(RATE_SAMPLE)
            .subquery()
        )
        with self._db.read() as db:
            mean: float | None = db.execute(select(func.avg(newest.c.processing_s))).scalar()
            if mean is None:
                return None
            if job is None:
                return mean / self._limits.running_jobs
            if job.state is not JobState.QUEUED:
                return mean
            ahead = count_by_state(db).running + _queue_position(db, job) - 1
            return mean * (1 + ahead // self._limits.running_jobs)

    def is_draining(self) -> bool:
        """Return whether the server is about to stop."""
        with self._db.read() as db:
            return is_draining(db)

    def cancel_job(self, job_id: str, outcome: Outcome) -> Job | None:
        """End a queued job at once, mark a running one; return the job as it is then, None where there is none."""
        with self._db.write(admission=True) as db:
            job = fetch(db, job_id, lock=True)
            if job and job.state is JobState.QUEUED:
                end_run(db, job, outcome, end_body=self._end_body, now=self._clock())
            elif job and job.state is JobState.RUNNING:
                db.execute(update(jobs).where(jobs.c.job_id == job_id).values(cancel_requested=True))
                timeline.record(db, job_id, EventKind.CANCEL_REQUESTED, at=self._clock())
            return fetch(db, job_id)

    def delete_job(self, job_id: str) -> bool:
        """Delete an ended job with its rows in all tables; False where it has not ended."""
        with self._db.write(admission=True) as db:
            ended = and_(jobs.c.job_id == job_id, has_ended)
            note_deletion(db, ended)
            return db.execute(delete(jobs).where(ended)).rowcount > 0


def _queue_position(db: Connection, job: Job) -> int:
    ahead = or_(jobs.c.queued_at < job.queued_at, and_(jobs.c.queued_at == job.queued_at, jobs.c.job_id <= job.job_id))
    return count(db, jobs.c.state == JobState.QUEUED, ahead)
