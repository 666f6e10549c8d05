"""Jobs as lists show them: summaries of many jobs, by page or by change. Blocking: call it from a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select, tuple_

from serve_app.jobs.job import CallbackState, Job
from serve_app.jobs.states import JobState
from serve_app.storage.tables import callbacks, events, has_ended, has_not_ended, jobs, results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ScalarSelect, Select

    from serve_app.storage.database import Database

LOOK_BACK = 50
"""How many earlier events are looked at again: on PostgreSQL a lower number may be committed after a higher one."""
_COLUMNS = tuple(jobs.c[name] for name in Job.__dataclass_fields__)


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


class JobList:
    """Reads many jobs with two queries."""

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
        """Return one page, newest first; `after` is the last job_id of the page before.

        Raises:
            LookupError: That job has been deleted, so the place of the next page is not known.
        """
        query = _summaries().order_by(jobs.c.created_at.desc(), jobs.c.job_id.desc()).limit(limit)
        if state:
            query = query.where(jobs.c.state == state)
        if callback:
            some = select(callbacks.c.job_id).where(callbacks.c.state == callback)  # quick: few are pending
            query = query.where(jobs.c.job_id.in_(some), _newest_callback() == callback, has_ended)
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
        return newest, self._fetch(_summaries().where(or_(has_not_ended, jobs.c.job_id.in_(changed))))

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


def _newest_callback() -> ScalarSelect[str]:
    states = select(callbacks.c.state).where(callbacks.c.job_id == jobs.c.job_id)
    return states.order_by(callbacks.c.sequence.desc()).limit(1).scalar_subquery()


def _summaries() -> Select[tuple[object, ...]]:
    how = (results.c.duration_s, results.c.processing_s, results.c.warnings, _newest_callback().label("callback"))
    return select(*_COLUMNS, *how).outerjoin(results, results.c.job_id == jobs.c.job_id)
