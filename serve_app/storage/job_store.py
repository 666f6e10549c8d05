"""The HTTP edge's side of the job table: submit, rerun, look up, list, cancel, delete. Blocking: call in a thread."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, func, insert, not_, or_, select, tuple_, union, update

from serve_app.jobs.job import CallbackExtras, CallbackState, Counts, Job, NewJob, Outcome, Prefetch, Rerun
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState, check
from serve_app.storage import timeline
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.job_rows import count_by_state, end_run, fetch
from serve_app.storage.server_state import deleted_sequence, is_draining, note_deletion
from serve_app.storage.tables import callbacks, checkpoints, events, has_ended, has_not_ended, jobs, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, ScalarSelect, Select

    from serve_app.settings import Limits
    from serve_app.storage.database import Database
    from serve_app.storage.job_rows import EndBody

RATE_SAMPLE = 20
"""How many of the newest completed jobs the estimate of processing time looks at."""
LOOK_BACK = 50
"""How many earlier events are looked at again: on PostgreSQL a lower number may be committed after a higher one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The result of a POST, also of one for a rerun."""

    job: Job | None
    """The job as it is now; None where the queue is full, or the server drains."""
    started: bool = False
    """This POST began a run."""
    conflict: bool = False
    """The id is known with other content; or the job has not ended, or has been run again meanwhile."""
    draining: bool = False
    """The server is about to stop, and takes no new job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job in a list. Durations in seconds, None where there is no result."""

    job: Job
    position: int | None
    """Place in the queue, 1 for the next; None for a job that does not wait."""
    duration_s: float | None
    processing_s: float | None
    warnings: int | None
    """None also for results that were stored before warnings were counted."""
    callback: CallbackState


class JobStore:
    """The jobs, as clients of the API see and change them, each method in one transaction; `job_list` has many."""

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
        self.checkpoints = Checkpoints(database)
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
                self._renew_extras(db, known, new.extras)
                return Submission(job=known)
            if (refusal := self._refusal(db)) is not None:
                return refusal
            self._queue(db, known, new)
            return Submission(job=fetch(db, new.job_id), started=True)

    def rerun_job(self, rerun: Rerun) -> Submission:
        """Begin a new run of an ended job with other options; durable when this returns.

        Its result and its checkpoints stay, and so does the content by which a repeated POST is recognised.
        """
        with self._db.write(admission=True) as db:
            known = fetch(db, rerun.job.job_id, lock=True)
            if known is None or not known.state.ended or known.run_id != rerun.job.run_id:
                return Submission(job=known, conflict=True)
            if (refusal := self._refusal(db)) is not None:
                return refusal
            now = self._clock()
            fresh = self._fresh(rerun, now) | {"prefetch": Prefetch.NONE if rerun.needs_sound else Prefetch.DONE}
            self._begin_next_run(db, known, fresh)
            detail = " ".join(("rerun", *rerun.changed))
            timeline.record(db, known.job_id, EventKind.QUEUED, at=now, detail=detail)
            return Submission(job=fetch(db, known.job_id), started=True)

    def _refusal(self, db: Connection) -> Submission | None:
        """Return why no run can begin now: the server drains, or the queue is full. None where one can."""
        if is_draining(db):
            return Submission(job=None, draining=True)
        counts = count_by_state(db)
        full = counts.running + counts.queued >= self._limits.running_jobs + self._limits.queued_jobs
        return Submission(job=None) if full else None

    def _queue(self, db: Connection, known: Job | None, new: NewJob) -> None:
        now = self._clock()
        fresh = self._fresh(new, now) | {"callback_url": new.callback_url}
        if known:
            self._begin_next_run(db, known, fresh)
            db.execute(delete(checkpoints).where(checkpoints.c.job_id == new.job_id))  # the video may be another now
        else:
            row = {"job_id": new.job_id, "fingerprint": new.fingerprint, "run": 1, "created_at": now}
            db.execute(insert(jobs).values(**row, **fresh, sequence=deleted_sequence(db)))
        timeline.record(db, new.job_id, EventKind.QUEUED, at=now)

    @staticmethod
    def _fresh(asked: NewJob | Rerun, now: float) -> dict[str, Any]:
        """Return the values of a job's row at the beginning of a run."""
        return {
            "state": JobState.QUEUED,
            "token": secrets.token_hex(8),
            "attempt": 0,
            "video_url": asked.video_url,
            "video_expires_at": asked.video_expires_at,
            "custom_metadata": asked.extras.custom_metadata,
            "callback_headers": asked.extras.headers,
            "options": asked.options.model_dump(exclude_none=True),
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

    @staticmethod
    def _begin_next_run(db: Connection, known: Job, fresh: dict[str, Any]) -> None:
        """Put an ended job back into the queue; the end of its last run is not told any more."""
        check(known.state, JobState.QUEUED)
        db.execute(update(jobs).where(jobs.c.job_id == known.job_id).values(run=known.run + 1, **fresh))
        db.execute(
            update(callbacks)
            .where(callbacks.c.job_id == known.job_id, callbacks.c.state == CallbackState.PENDING)
            .values(state=CallbackState.UNDELIVERED, last_error="a new run began")
        )

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

    def _renew_extras(self, db: Connection, known: Job, extras: CallbackExtras) -> None:
        """Take what a repeated POST adds to the callbacks that are still to come, such as a token that was renewed."""
        before = CallbackExtras(custom_metadata=known.custom_metadata, headers=known.callback_headers)
        renewed = {"custom_metadata": extras.custom_metadata, "callback_headers": extras.headers}
        renewed = {name: value for name, value in renewed.items() if value is not None}
        if renewed and not known.state.ended and extras != before:
            db.execute(update(jobs).where(jobs.c.job_id == known.job_id).values(**renewed))

    def fetch_job(self, job_id: str) -> Job | None:
        """Return a job, None where there is none of this id."""
        with self._db.read() as db:
            return fetch(db, job_id)

    def fetch_result(self, job_id: str) -> bytes | None:
        """Return a job's result object as JSON, None where there is none."""
        with self._db.read() as db:
            return db.execute(select(results.c.body).where(results.c.job_id == job_id)).scalar()

    def name_speakers(self, job: Job, names: Mapping[str, str]) -> Job | None:
        """Replace the names of the result's speakers, by speaker id; None where `job` is not as it was meanwhile."""
        with self._db.write() as db:
            now = fetch(db, job.job_id, lock=True)
            if now is None or (now.run_id, now.state) != (job.run_id, job.state):  # the result may be another
                return None
            if (now.speakers or {}) != names:
                db.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(speakers=dict(names) or None))
                timeline.record(db, job.job_id, EventKind.SPEAKERS_NAMED, at=self._clock())
            return fetch(db, job.job_id)

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
            .where(jobs.c.finished_at.is_not(None))  # a rerun has no end yet, and the result of the last; by an index
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
            deleted = db.execute(delete(jobs).where(ended)).rowcount > 0
        if deleted:
            self._db.forget()
        return deleted


class JobList:
    """Summaries of many jobs, by page or by change, with two queries."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def page(
        self,
        *,
        state: JobState | None = None,
        callback: CallbackState | None = None,
        limit: int,
        after: str | None = None,
    ) -> Sequence[JobSummary]:
        """Return one page, newest first, that follows job `after`. Raises LookupError where that has been deleted."""
        query = _summaries().order_by(jobs.c.created_at.desc(), jobs.c.job_id.desc()).limit(limit)
        few = callback is CallbackState.PENDING  # then those are looked at, and no index of states or ages walked
        if state:
            query = query.where((jobs.c.state.concat("") if few else jobs.c.state) == state)
        if callback:
            some = select(callbacks.c.job_id).where(callbacks.c.state == callback)
            query = query.where(jobs.c.job_id.in_(some), _newest_callback() == callback, not_(has_not_ended))
        if after:
            last = select(jobs.c.created_at, jobs.c.job_id).where(jobs.c.job_id == after)
            with self._db.read() as db:
                if (place := db.execute(last).one_or_none()) is None:
                    raise LookupError(after)
            query = query.where(tuple_(jobs.c.created_at, jobs.c.job_id) < tuple_(*place))
        return self._fetch(query)

    def changes(self, since: int | None) -> tuple[int, Sequence[JobSummary]]:
        """Return the number of the newest event, and the jobs that may have changed since event `since` (None: now).

        These are all that have not ended, and those with an event since then.
        """
        with self._db.read() as db:
            newest: int = db.execute(select(func.max(events.c.id))).scalar() or 0
        changed = select(events.c.job_id).where(events.c.id > (newest if since is None else since) - LOOK_BACK)
        unfinished = select(jobs.c.job_id).where(has_not_ended)
        return newest, self._fetch(_summaries().where(jobs.c.job_id.in_(union(unfinished, changed))))

    def _fetch(self, query: Select[tuple[object, ...]]) -> list[JobSummary]:
        waiting = select(jobs.c.job_id).where(jobs.c.state == JobState.QUEUED)
        with self._db.read() as db:
            rows = db.execute(query).mappings().all()
            queued = any(row["state"] == JobState.QUEUED for row in rows)
            order = db.execute(waiting.order_by(jobs.c.queued_at, jobs.c.job_id)).scalars() if queued else ()
            position = {job_id: number for number, job_id in enumerate(order, 1)}
        return [
            JobSummary(
                job=(job := Job.of({name: row[name] for name in Job.__dataclass_fields__})),
                position=position.get(job.job_id),
                duration_s=row["duration_s"],
                processing_s=row["processing_s"],
                warnings=row["warnings"],
                callback=CallbackState(row["callback"]) if row["callback"] and job.state.ended else CallbackState.NONE,
            )
            for row in rows
        ]


def _queue_position(db: Connection, job: Job) -> int:
    ahead = or_(jobs.c.queued_at < job.queued_at, and_(jobs.c.queued_at == job.queued_at, jobs.c.job_id <= job.job_id))
    query = select(func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED, ahead)
    return db.execute(query).scalar_one()


def _newest_callback() -> ScalarSelect[str]:
    states = select(callbacks.c.state).where(callbacks.c.job_id == jobs.c.job_id)
    return states.order_by(callbacks.c.sequence.desc()).limit(1).scalar_subquery()


def _summaries() -> Select[tuple[object, ...]]:
    how = (results.c.duration_s, results.c.processing_s, results.c.warnings, _newest_callback().label("callback"))
    return select(jobs, *how).outerjoin(results, results.c.job_id == jobs.c.job_id)
