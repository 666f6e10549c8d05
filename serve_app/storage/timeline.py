"""A job's timeline: its events, each written in the transaction of the change itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import Float, String, insert, literal, select

from serve_app.storage.tables import events, jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from serve_app.jobs.job import Attempt
    from serve_app.jobs.stages import TimedStage

NEWEST = 1000
"""How many events of a job are shown; 72 hours of retries are some 210."""


class EventKind(StrEnum):
    """What may happen to a job."""

    QUEUED = "queued"
    """A POST began a run."""
    STARTED = "started"
    """The run got a slot."""
    ATTEMPT = "attempt"
    """A job actor began to work."""
    GIVEN_BACK = "given_back"
    """A job actor gave the job back, because the server stops; its attempt does not count."""
    STAGE_STARTED = "stage_started"
    """`detail` is the stage's name, as in the result's `metadata.stages`; stages run side by side."""
    STAGE_ENDED = "stage_ended"
    """The same, whether the stage succeeded or not."""
    CANCEL_REQUESTED = "cancel_requested"
    COMPLETED = "completed"
    FAILED = "failed"
    """`detail` is the error's code."""
    CALLBACK_DELIVERED = "callback_delivered"
    CALLBACK_FAILED = "callback_failed"
    """`detail` is the kind of error; another try follows."""
    CALLBACK_UNDELIVERED = "callback_undelivered"
    """No other try follows."""
    CALLBACK_RENEWED = "callback_renewed"
    """A redelivery was requested."""
    SPEAKERS_NAMED = "speakers_named"
    """The speakers got names, or lost them; `detail` does not tell which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event: `at` in epoch seconds; `attempt` is the newest one at that time."""

    at: float
    kind: EventKind
    run: int
    attempt: int
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The beginning or end of a stage, `at` in epoch seconds. Collected during the work, stored with the next write."""

    at: float
    kind: EventKind
    stage: TimedStage


def find_attempt(db: Connection, job_id: str, run: int, *, at: float) -> int | None:
    """Return the number of the attempt that began at `at`, in epoch seconds; None where there is none."""
    began = select(events.c.attempt).where(
        *(events.c.job_id == job_id, events.c.run == run, events.c.kind == EventKind.ATTEMPT, events.c.at == at)
    )
    number: int | None = db.execute(began).scalar()
    return number


def mark(db: Connection, attempt: Attempt, marks: Sequence[Mark]) -> None:
    """Store the beginnings and ends of an attempt's stages."""
    whose = {"job_id": attempt.job_id, "run": attempt.run, "attempt": attempt.number}
    if marks:
        rows = [whose | {"at": mark.at, "kind": str(mark.kind), "detail": mark.stage} for mark in marks]
        db.execute(insert(events), rows)


def record(db: Connection, job_id: str, kind: EventKind, *, at: float, detail: str | None = None) -> None:
    """Store an event, with the run and the attempt that the job's row has now."""
    row = select(jobs.c.job_id, jobs.c.run, jobs.c.attempt).where(jobs.c.job_id == job_id)
    values = (literal(at, Float), literal(str(kind), String), literal(detail, String))
    db.execute(
        insert(events).from_select(["job_id", "run", "attempt", "at", "kind", "detail"], row.add_columns(*values))
    )


def fetch(db: Connection, job_id: str) -> Sequence[Event]:
    """Return the newest `NEWEST` events of a job, oldest first."""
    columns = [events.c[name] for name in Event.__dataclass_fields__]
    known = events.c.kind.in_(list(EventKind))  # a later release may have others, while both run
    newest = select(*columns).where(events.c.job_id == job_id, known).order_by(events.c.id.desc()).limit(NEWEST)
    found = [Event(**{**row, "kind": EventKind(row["kind"])}) for row in db.execute(newest).mappings()]
    return found[::-1]
