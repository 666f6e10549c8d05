"""What the rest of the server sees of a job: frozen values, no rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from serve_app.jobs.progress import Stage
from serve_app.jobs.states import JobState


class JobOptions(BaseModel):
    """What a POST may choose; part of the job's content."""

    model_config = ConfigDict(frozen=True)

    language: str = "auto"
    enable_gpu: bool = True
    emotion_detection: bool = True
    max_workers: int = 4
    traceparent: str | None = None
    """The trace that the POST came with; no part of the content."""

    @property
    def content(self) -> dict[str, Any]:
        """What tells one request from another."""
        return self.model_dump(exclude={"traceparent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A checked request, ready to be stored."""

    job_id: str
    video_url: str
    video_expires_at: float
    callback_url: str | None
    options: JobOptions
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The fence: writes for a job count only while these are the row's own numbers and it runs."""

    job_id: str
    run: int
    number: int


class CallbackState(StrEnum):
    """How the telling of a job's end stands."""

    NONE = "none"
    """Nobody is to be told, or the job has not ended."""
    PENDING = "pending"
    """Due, or being retried."""
    DELIVERED = "delivered"
    """A 2xx came."""
    UNDELIVERED = "undelivered"
    """Given up after 72 hours, or the receiver answered 410. A redelivery starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackStatus:
    """For the status answer."""

    state: CallbackState = CallbackState.NONE
    attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCallback:
    """A terminal callback that a sender has claimed: nobody else tries it until the claim runs out."""

    id: str
    job_id: str
    url: str
    sequence: int
    body: bytes
    attempts: int
    due_since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the job table."""

    job_id: str
    state: JobState
    run: int
    attempt: int
    fingerprint: str
    video_url: str
    video_expires_at: float
    callback_url: str | None
    options: JobOptions
    stage: Stage
    progress: int
    sequence: int
    created_at: float
    queued_at: float
    told_at: float
    started_at: float | None
    finished_at: float | None
    spent_s: float
    error_code: str | None
    error_message: str | None
    cancel_requested: bool
    prefetch: str
    beats: int

    @classmethod
    def of(cls, row: Any) -> Job:
        """From a row mapping."""
        return cls(
            **{
                **row,
                "state": JobState(row["state"]),
                "stage": Stage(row["stage"]),
                "options": JobOptions.model_validate(row["options"]),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many jobs stand where."""

    running: int
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: with a result, or with an error code and its sentence."""

    result: bytes | None = None
    duration_s: float = 0.0
    processing_s: float = 0.0
    warnings: int = 0
    error_code: str | None = None
    error_message: str | None = None

    @property
    def state(self) -> JobState:
        """The state that the job ends in."""
        return JobState.COMPLETED if self.result is not None else JobState.FAILED
