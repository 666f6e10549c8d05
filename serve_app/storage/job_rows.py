"""The statements on job rows that several stores share. Each runs in its caller's transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, insert, select, update

from serve_app.jobs.job import Counts, Job
from serve_app.jobs.stages import Stage, Step
from serve_app.jobs.states import JobState, check
from serve_app.storage import timeline
from serve_app.storage.outbox import enqueue
from serve_app.storage.tables import checkpoints, has_not_ended, jobs, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from sqlalchemy import ColumnElement, Connection

    from serve_app.jobs.job import Attempt, Outcome

    EndBody: TypeAlias = Callable[[Job, Outcome], bytes]
    """Makes the body of the callback that reports the end of a run."""


def fence(attempt: Attempt) -> ColumnElement[bool]:
    """Return the condition that finds the job's row only while the attempt is its newest and the run goes on."""
    return and_(
        jobs.c.job_id == attempt.job_id,
        jobs.c.run == attempt.run,
        jobs.c.token == attempt.token,
        jobs.c.attempt == attempt.number,
        jobs.c.state == JobState.RUNNING,
    )


def fetch(db: Connection, job_id: str, *, lock: bool = False) -> Job | None:
    """Return a job. `lock`: no other transaction changes the row until this one ends."""
    query = select(jobs).where(jobs.c.job_id == job_id)
    row = db.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return Job.of(row) if row else None


_COUNTS = select(jobs.c.state, func.count()).where(has_not_ended).group_by(jobs.c.state)


def count_by_state(db: Connection) -> Counts:
    """Return how many jobs run and wait."""
    found: dict[str, int] = {row[0]: row[1] for row in db.execute(_COUNTS)}
    return Counts(running=found.get(JobState.RUNNING, 0), queued=found.get(JobState.QUEUED, 0))


def end_run(db: Connection, job: Job, outcome: Outcome, *, end_body: EndBody, now: float) -> str | None:
    """Store the end of a run with its result; return the id of its callback, None where the job has no URL for one.

    The result of an earlier run stays where this one has none. Checkpoints stay for further runs, but for what a whole
    transcript has made useless.
    """
    check(job.state, outcome.state)
    completed = outcome.state is JobState.COMPLETED
    db.execute(
        update(jobs)
        .where(jobs.c.job_id == job.job_id)
        .values(
            state=outcome.state,
            video_url=job.video_url.partition("?")[0],  # the query signs the download, which is over
            stage=Stage.DONE if completed else job.stage,
            progress=100 if completed else job.progress,
            finished_at=now,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            sequence=jobs.c.sequence + 1,
        )
    )
    if outcome.result is not None:
        partial = {"job_id": job.job_id, "stage": Step.PARTIAL_TRANSCRIPT}
        db.execute(delete(checkpoints).filter_by(**partial))
        db.execute(delete(results).where(results.c.job_id == job.job_id))
        row = {"job_id": job.job_id, "body": outcome.result, "duration_s": outcome.duration_s}
        row |= {"processing_s": outcome.processing_s, "warnings": outcome.warnings}
        db.execute(insert(results).values(**row))
        db.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(speakers=None))  # names of the old result's
    timeline.record(db, job.job_id, EventKind(outcome.state), at=now, detail=outcome.error_code)
    unnamed = replace(job, speakers=None)
    return enqueue(db, unnamed, end_body(unnamed, outcome), now=now) if job.callback_url else None
