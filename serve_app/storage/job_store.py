"""The job table's questions and changes, each one transaction. Blocking: call it from a thread.

Whoever works on a job proves itself by its `Attempt`: a write of an attempt that is no longer the row's own, or of
a run that has ended, changes nothing and says so by its return value.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, exists, func, insert, or_, select, update

from serve_app.callbacks.payloads import completed, failed
from serve_app.jobs.job import Attempt, CallbackState, Counts, Job, NewJob, Outcome
from serve_app.jobs.progress import Progress, Stage
from serve_app.jobs.states import JobState, check
from serve_app.storage import drain, numbering, timeline
from serve_app.storage.job_list import Board
from serve_app.storage.outbox import owe
from serve_app.storage.tables import callbacks, checkpoints, jobs, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from deployments.errors import Locale
    from serve_app.storage.database import Database
    from serve_app.storage.timeline import Mark

DRIVER_GRACE_S = 3.0
PRUNED_AT_ONCE = 200
RATE_SAMPLE = 20
"""How many of the newest completed jobs the estimate of processing time looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What became of a POST."""

    job: Job | None
    """The row as it stands now; None where the queue is full, or the server is about to stop."""
    started: bool = False
    """This POST began a run."""
    conflict: bool = False
    """The id is known with other content."""
    draining: bool = False
    """The server is about to stop: nothing new is taken."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A run has just ended; `callback_id` is what is owed now, None where nobody is to be told."""

    callback_id: str | None


class JobStore:
    """All that is durable about jobs."""

    def __init__(
        self,
        database: Database,
        *,
        queue_limit: int,
        running_limit: int,
        locale: Locale = "ko",
        max_body_bytes: int = 50_000_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self.board = Board(database)
        self._queue_limit = queue_limit
        self._running_limit = running_limit
        self._locale: Locale = locale
        self._max_body_bytes = max_body_bytes
        self._clock = clock

    # What the HTTP edge asks for

    def submit(self, new: NewJob) -> Submission:
        """Store a request, or find that it is known; durable when this returns."""
        with self._db.write(admission=True) as db:
            known = _get(db, new.job_id, lock=True)
            if known and known.fingerprint != new.fingerprint:
                return Submission(job=known, conflict=True)
            if known and known.state is not JobState.FAILED:
                self._renew_url(db, known, new)
                return Submission(job=known)
            if drain.is_on(db):
                return Submission(job=None, draining=True)
            if not self._has_room(db):
                return Submission(job=None)
            self._queue(db, known, new)
            return Submission(job=_get(db, new.job_id), started=True)

    def _has_room(self, db: Connection) -> bool:
        counts = _counts(db)
        return counts.running + counts.queued < self._running_limit + self._queue_limit

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
            "prefetch": "none",
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
            db.execute(insert(jobs).values(**row, **fresh, sequence=numbering.start(db)))
        timeline.record(db, new.job_id, EventKind.QUEUED, at=now)

    def _renew_url(self, db: Connection, known: Job, new: NewJob) -> None:
        """A retry carries a newly signed URL, which counts while the download is not done."""
        if not known.state.ended and known.video_url != new.video_url:
            db.execute(
                update(jobs)
                .where(jobs.c.job_id == known.job_id)
                .values(
                    video_url=new.video_url,
                    video_expires_at=new.video_expires_at,
                    prefetch=case((jobs.c.prefetch == "failed", "none"), else_=jobs.c.prefetch),
                )
            )

    def get(self, job_id: str) -> Job | None:
        """The row."""
        with self._db.read() as db:
            return _get(db, job_id)

    def result(self, job_id: str) -> bytes | None:
        """The result object as stored, None where there is none."""
        with self._db.read() as db:
            return db.execute(select(results.c.body).where(results.c.job_id == job_id)).scalar()

    def timeline(self, job_id: str) -> Sequence[timeline.Event]:
        """What happened to the job, oldest first."""
        with self._db.read() as db:
            return timeline.timeline(db, job_id)

    def queue_position(self, job: Job) -> int:
        """1 for the job that is next."""
        with self._db.read() as db:
            return _position(db, job)

    def counts(self) -> Counts:
        """How many run and wait."""
        with self._db.read() as db:
            return _counts(db)

    def estimate_s(self, job: Job | None) -> float | None:
        """Seconds until `job` is done (until a slot of the queue is free, where it is None); None: nothing to go by.

        The queue moves by as many jobs as run at once in the mean processing time of the newest completed ones.
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
                return mean / self._running_limit
            if job.state is not JobState.QUEUED:
                return mean
            ahead = _counts(db).running + _position(db, job) - 1
            return mean * (1 + ahead // self._running_limit)

    def draining(self) -> bool:
        """Whether the server is about to stop."""
        with self._db.read() as db:
            return drain.is_on(db)

    def cancel(self, job_id: str, outcome: Outcome) -> Job | None:
        """End a queued job at once, mark a running one; the row as it stands then, None where there is none."""
        with self._db.write(admission=True) as db:
            job = _get(db, job_id, lock=True)
            if job and job.state is JobState.QUEUED:
                self._end(db, job, outcome)
            elif job and job.state is JobState.RUNNING:
                db.execute(update(jobs).where(jobs.c.job_id == job_id).values(cancel_requested=True))
                timeline.record(db, job_id, EventKind.CANCEL_REQUESTED, at=self._clock())
            return _get(db, job_id)

    def delete(self, job_id: str) -> bool:
        """Remove an ended job with its result and callbacks; False where it has not ended."""
        with self._db.write(admission=True) as db:
            ended = and_(jobs.c.job_id == job_id, jobs.c.state.in_(_ENDED))
            numbering.remember(db, ended)
            return db.execute(delete(jobs).where(ended)).rowcount > 0

    # What the manager asks for

    def admit(self) -> Sequence[Job]:
        """Give free slots to those who wait longest; the rows that now run."""
        counts = self.counts()
        if not counts.queued or counts.running >= self._running_limit:
            return []
        with self._db.write(admission=True) as db:
            if drain.is_on(db):
                return []
            free = self._running_limit - _count(db, jobs.c.state == JobState.RUNNING)
            waiting = self._oldest(db, max(0, free))
            now = self._clock()
            for job in waiting:
                check(job.state, JobState.RUNNING)
                db.execute(
                    update(jobs)
                    .where(jobs.c.job_id == job.job_id)
                    .values(state=JobState.RUNNING, stage=Stage.STARTING, started_at=now)
                )
                timeline.record(db, job.job_id, EventKind.STARTED, at=now)
            return [started for job in waiting if (started := _get(db, job.job_id))]

    def _oldest(self, db: Connection, limit: int) -> list[Job]:
        order = (jobs.c.queued_at, jobs.c.job_id)
        query = select(jobs).where(jobs.c.state == JobState.QUEUED).order_by(*order).limit(limit)
        return [Job.of(row) for row in db.execute(query).mappings()]

    def running(self) -> Sequence[Job]:
        """All that have a slot."""
        with self._db.read() as db:
            return [Job.of(row) for row in db.execute(select(jobs).where(jobs.c.state == JobState.RUNNING)).mappings()]

    def take_due_heartbeats(self, *, since_s: float) -> Sequence[Job]:
        """Jobs whose backend heard nothing for `since_s` seconds, marked as told now.

        Those that run are told by their drivers, so only after `DRIVER_GRACE_S` more: while a driver starts, or died.
        Whoever seems to have been told far in the future was told before the clock was set back.
        """
        now = self._clock()
        silent = or_(
            and_(jobs.c.state == JobState.QUEUED, jobs.c.told_at <= now - since_s),
            and_(jobs.c.state == JobState.RUNNING, jobs.c.told_at <= now - since_s - DRIVER_GRACE_S),
            and_(jobs.c.state.not_in(_ENDED), jobs.c.told_at > now + since_s),
        )
        query = select(jobs.c.job_id).where(silent, jobs.c.callback_url.is_not(None))
        with self._db.read() as db:
            if db.execute(query.limit(1)).first() is None:
                return []
        with self._db.write(admission=True) as db:
            ids = list(db.execute(query.with_for_update()).scalars())
            db.execute(update(jobs).where(jobs.c.job_id.in_(ids)).values(told_at=now, sequence=jobs.c.sequence + 1))
            return [job for job_id in ids if (job := _get(db, job_id))]

    def to_prefetch(self, limit: int) -> Sequence[Job]:
        """Queued jobs whose audio nobody fetched yet, the URL with the least time left first."""
        query = (
            select(jobs)
            .where(jobs.c.state == JobState.QUEUED, jobs.c.prefetch == "none")
            .order_by(jobs.c.video_expires_at)
            .limit(limit)
        )
        with self._db.read() as db:
            return [Job.of(row) for row in db.execute(query).mappings()]

    def set_prefetch(self, job: Job, state: str) -> None:
        """Note how fetching ahead stands."""
        with self._db.write() as db:
            db.execute(update(jobs).where(jobs.c.job_id == job.job_id, jobs.c.run == job.run).values(prefetch=state))

    def reset_prefetch(self) -> None:
        """A new manager fetches again what the old one was at."""
        with self._db.write(admission=True) as db:
            db.execute(update(jobs).where(jobs.c.prefetch == "running").values(prefetch="none"))

    def prune(self, epoch_s: float) -> int:
        """Delete jobs that ended before then, with all that is kept of them, unless a callback is pending; how many.

        At most `PRUNED_AT_ONCE`: others want to write, too.
        """
        old = and_(jobs.c.state.in_(_ENDED), jobs.c.finished_at < epoch_s)
        pending = exists().where(callbacks.c.job_id == jobs.c.job_id, callbacks.c.state == CallbackState.PENDING)
        query = select(jobs.c.job_id).where(old, ~pending).order_by(jobs.c.finished_at).limit(PRUNED_AT_ONCE)
        with self._db.write(admission=True) as db:
            ids = list(db.execute(query.with_for_update()).scalars())
            numbering.remember(db, jobs.c.job_id.in_(ids))
            # asked again now that nobody else changes these rows: a redelivery may just have begun
            return db.execute(delete(jobs).where(jobs.c.job_id.in_(ids), ~pending)).rowcount

    # What the driver asks for

    def begin_attempt(self, job_id: str, run: int) -> Job | None:
        """Count an attempt before its work starts; None where there is nothing (more) to do in this run, or now."""
        with self._db.write() as db:
            if drain.is_on(db):
                return None
            changed = db.execute(
                update(jobs)
                .where(jobs.c.job_id == job_id, jobs.c.run == run, jobs.c.state == JobState.RUNNING)
                .values(attempt=jobs.c.attempt + 1)
            )
            if not changed.rowcount:
                return None
            timeline.record(db, job_id, EventKind.ATTEMPT, at=self._clock())
            return _get(db, job_id)

    def give_back(self, attempt: Attempt, *, spent_s: float, marks: Sequence[Mark] = ()) -> bool:
        """Uncount an attempt that was told to leave: it is no crash. False: it no longer counts.

        Its number is free for the next attempt, so this is the last that it writes.
        """
        unspent = {"attempt": jobs.c.attempt - 1, "spent_s": jobs.c.spent_s + spent_s}
        with self._db.write() as db:
            if not db.execute(update(jobs).where(fence(attempt)).values(**unspent)).rowcount:
                return False
            timeline.mark(db, attempt, marks)
            timeline.record(db, attempt.job_id, EventKind.GIVEN_BACK, at=self._clock())
            return True

    def beat(self, attempt: Attempt, *, spent_s: float) -> bool:
        """Keep the driver's lease, and store the processing time since the last call; False: it no longer counts."""
        living = {"beats": jobs.c.beats + 1, "spent_s": jobs.c.spent_s + spent_s}
        with self._db.write() as db:
            return db.execute(update(jobs).where(fence(attempt)).values(**living)).rowcount > 0

    def tell(self, attempt: Attempt, progress: Progress, *, spent_s: float, marks: Sequence[Mark] = ()) -> int | None:
        """Store progress and the processing time since the last call, and take the next callback number: a beat, too.

        None where the attempt no longer counts.
        """
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

    def finish(self, attempt: Attempt, outcome: Outcome, marks: Sequence[Mark] = ()) -> Ending | None:
        """End the run in one commit: state, result, the callback that is due. None: the attempt no longer counts."""
        with self._db.write(admission=True) as db:
            job = _get(db, attempt.job_id, lock=True)
            if job is None or (job.run, job.attempt) != (attempt.run, attempt.number) or job.state.ended:
                return None
            timeline.mark(db, attempt, marks)
            return Ending(self._end(db, job, outcome))

    def _end(self, db: Connection, job: Job, outcome: Outcome) -> str | None:
        check(job.state, outcome.state)
        now = self._clock()
        done = outcome.state is JobState.COMPLETED
        db.execute(
            update(jobs)
            .where(jobs.c.job_id == job.job_id)
            .values(
                state=outcome.state,
                video_url=job.video_url.partition("?")[0],  # what signed the download is no longer needed
                stage=Stage.DONE if done else job.stage,
                progress=100 if done else job.progress,
                finished_at=now,
                error_code=outcome.error_code,
                error_message=outcome.error_message,
                sequence=jobs.c.sequence + 1,
            )
        )
        db.execute(delete(checkpoints).where(checkpoints.c.job_id == job.job_id))
        db.execute(delete(results).where(results.c.job_id == job.job_id))
        if outcome.result is not None:
            row = {"job_id": job.job_id, "body": outcome.result, "duration_s": outcome.duration_s}
            row |= {"processing_s": outcome.processing_s, "warnings": outcome.warnings}
            db.execute(insert(results).values(**row))
        timeline.record(db, job.job_id, EventKind(outcome.state), at=now, detail=outcome.error_code)
        return owe(db, job, self._body(job, outcome), now=now) if job.callback_url else None

    def _body(self, job: Job, outcome: Outcome) -> bytes:
        """What the backend is told of the end."""
        if outcome.result is not None:
            return completed(job.job_id, outcome.result, locale=self._locale, max_bytes=self._max_body_bytes)
        return failed(job.job_id, job.progress, code=str(outcome.error_code), message=str(outcome.error_message))


_ENDED = (JobState.COMPLETED, JobState.FAILED)


def fence(attempt: Attempt) -> ColumnElement[bool]:
    """The job's row while the attempt counts."""
    return and_(
        jobs.c.job_id == attempt.job_id,
        jobs.c.run == attempt.run,
        jobs.c.attempt == attempt.number,
        jobs.c.state == JobState.RUNNING,
    )


def _get(db: Connection, job_id: str, *, lock: bool = False) -> Job | None:
    """`lock`: until the transaction ends nobody else changes the row (SQLite's transactions see to that anyway)."""
    query = select(jobs).where(jobs.c.job_id == job_id)
    row = db.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return Job.of(row) if row else None


def _position(db: Connection, job: Job) -> int:
    ahead = or_(jobs.c.queued_at < job.queued_at, and_(jobs.c.queued_at == job.queued_at, jobs.c.job_id <= job.job_id))
    return _count(db, jobs.c.state == JobState.QUEUED, ahead)


def _count(db: Connection, *conditions: ColumnElement[bool]) -> int:
    return db.execute(select(func.count()).select_from(jobs).where(*conditions)).scalar_one()


def _counts(db: Connection) -> Counts:
    query = select(jobs.c.state, func.count()).where(jobs.c.state.not_in(_ENDED)).group_by(jobs.c.state)
    found: dict[str, int] = {row[0]: row[1] for row in db.execute(query)}
    return Counts(running=found.get(JobState.RUNNING, 0), queued=found.get(JobState.QUEUED, 0))
