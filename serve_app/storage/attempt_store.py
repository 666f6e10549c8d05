"""What an attempt writes of itself. Each method is one transaction. Blocking: call it from a thread.

A write counts only while the attempt is the job's newest and its run goes on; a later one returns that it does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import update

from serve_app.jobs.job import Attempt
from serve_app.jobs.states import JobState
from serve_app.storage import timeline
from serve_app.storage.job_rows import end_run, fence, fetch
from serve_app.storage.server_state import is_draining
from serve_app.storage.tables import jobs
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve_app.jobs.job import Job, Outcome
    from serve_app.jobs.progress import Progress
    from serve_app.storage.database import Database
    from serve_app.storage.job_rows import EndBody
    from serve_app.storage.timeline import Mark


@dataclass(frozen=True, slots=True)
class Ending:
    """A run has just ended; `callback_id` is the callback that is due now, None for a job without callbacks."""

    callback_id: str | None


class AttemptStore:
    """Counts attempts, and stores their progress, processing time and end."""

    def __init__(self, database: Database, *, end_body: EndBody, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._end_body = end_body
        self._clock = clock

    def begin_attempt(self, job_id: str, run: int, token: str, at: float) -> Job | None:
        """Count an attempt before its work starts; None where the run does not go on, or the server drains.

        Of several calls with the same `at`, in epoch seconds, one counts: a commit may succeed and its answer be lost.
        """
        with self._db.write() as db:
            job = fetch(db, job_id, lock=True)  # a commit that is under way is over then
            if job is None or (job.run, job.token, job.state) != (run, token, JobState.RUNNING):
                return None
            counted = timeline.find_attempt(db, job_id, run, at=at)
            if counted is not None:
                return job if job.attempt == counted else None
            if is_draining(db):
                return None
            db.execute(update(jobs).where(jobs.c.job_id == job_id).values(attempt=jobs.c.attempt + 1))
            timeline.record(db, job_id, EventKind.ATTEMPT, at=at)
            return fetch(db, job_id)

    def give_back(self, attempt: Attempt, *, spent_s: float, marks: Sequence[Mark] = ()) -> bool:
        """Uncount an attempt that ends because the server stops: it is no crash. False: it no longer counts.

        The next attempt gets the same number, so this must be the last write of this one.
        """
        unspent = {"attempt": jobs.c.attempt - 1, "spent_s": jobs.c.spent_s + spent_s}
        with self._db.write() as db:
            if not db.execute(update(jobs).where(fence(attempt)).values(**unspent)).rowcount:
                return False
            timeline.mark(db, attempt, marks)
            timeline.record(db, attempt.job_id, EventKind.GIVEN_BACK, at=self._clock())
            return True

    def beat(self, attempt: Attempt, *, spent_s: float) -> bool:
        """Renew the lease, and add the processing time since the last call; False: the attempt no longer counts."""
        renewed = {"beats": jobs.c.beats + 1, "spent_s": jobs.c.spent_s + spent_s}
        with self._db.write() as db:
            return db.execute(update(jobs).where(fence(attempt)).values(**renewed)).rowcount > 0

    def save_progress(
        self, attempt: Attempt, progress: Progress, *, spent_s: float, marks: Sequence[Mark] = ()
    ) -> int | None:
        """Store progress and marks, renew the lease; return the next callback's number, None: it no longer counts."""
        with self._db.write() as db:
            sequence: int | None = db.execute(
                update(jobs)
                .where(fence(attempt))
                .values(
                    progress=progress.percent,
                    stage=progress.stage,
                    sequence=jobs.c.sequence + 1,
                    told_at=self._clock(),
                    spent_s=jobs.c.spent_s + spent_s,
                    beats=jobs.c.beats + 1,
                )
                .returning(jobs.c.sequence)
            ).scalar()
            if sequence is not None:
                timeline.mark(db, attempt, marks)
            return sequence

    def finish_job(self, attempt: Attempt, outcome: Outcome, marks: Sequence[Mark] = ()) -> Ending | None:
        """End the run in one commit: state, result, callback. None: the attempt no longer counts."""
        with self._db.write(admission=True) as db:
            job = fetch(db, attempt.job_id, lock=True)
            if job is None or Attempt.of(job) != attempt or job.state.ended:
                return None
            timeline.mark(db, attempt, marks)
            return Ending(end_run(db, job, outcome, end_body=self._end_body, now=self._clock()))
