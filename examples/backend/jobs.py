"""Stores the backend's jobs in memory. A real backend stores them in its database, by the same rules as `apply`.

Each callback arrives at least once: it can arrive twice (same `webhook-id`), and a late retry can arrive after a newer
callback (`X-ML-Sequence` rises with every callback of a job). Both are acknowledged and otherwise ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import BaseModel, Field

MAX_JOBS = 1000
"""Beyond this number the oldest jobs are deleted: results can be large, and this store is in memory."""

Status = Literal["accepted", "processing", "completed", "failed"]
ENDED = ("completed", "failed")


class Callback(BaseModel):
    """The body of a callback, in v1.1 and v1.0. Unknown fields are ignored."""

    job_id: str = Field(min_length=1, max_length=128)
    status: Status
    progress: int | None = Field(default=None, ge=0, le=100)
    message: str | None = None
    result: dict[str, Any] | None = None
    """If the body would be over 50 MB: without `segments`, with `result_url`, a path on the ML Server."""
    error_code: str | None = None
    error_message: str | None = None


@dataclass(slots=True, kw_only=True)
class Job:
    """The state of a job, as of the last callback."""

    job_id: str
    status: Status = "accepted"
    progress: int = 0
    message: str | None = None
    status_url: str | None = None
    estimated_time: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    result: dict[str, Any] | None = None
    called_back: bool = False
    """Whether a callback was applied."""
    sequence: int | None = None
    """The newest `X-ML-Sequence` that was applied; None before the first callback."""
    seen: set[str] = field(default_factory=set)
    """The `webhook-id`s of the callbacks that were applied."""

    def public(self) -> dict[str, Any]:
        """Return the fields for the frontend, without those that only `JobStore` needs."""
        names = (item.name for item in fields(self))
        return {name: getattr(self, name) for name in names if name not in ("called_back", "sequence", "seen")}


class JobStore:
    """All jobs, by id. It needs no locks: only one event loop uses it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def get(self, job_id: str) -> Job | None:
        """Return the job, or None."""
        return self._jobs.get(job_id)

    def open(self, job_id: str) -> Job:
        """Return the job, or create it."""
        if job_id not in self._jobs:
            while len(self._jobs) >= MAX_JOBS:
                del self._jobs[next(iter(self._jobs))]
            self._jobs[job_id] = Job(job_id=job_id)
        return self._jobs[job_id]

    def started(self, job_id: str, answer: dict[str, Any]) -> None:
        """Store that the ML Server accepted the job. A callback that was faster than this answer has precedence."""
        job = self.open(job_id)
        job.status_url = answer.get("status_url")
        job.estimated_time = answer.get("estimated_time")
        if not job.called_back:
            job.status = answer.get("status", "processing")
            job.message = answer.get("message")

    def not_started(self, job_id: str, code: str, message: str) -> None:
        """Store that the call to the ML Server failed. After a timeout the job may run: callbacks have precedence."""
        job = self.open(job_id)
        if not job.called_back:
            job.status, job.error_code, job.error_message = "failed", code, message

    def apply(
        self, callback: Callback, *, webhook_id: str | None, sequence: int | None
    ) -> Literal["applied", "duplicate", "stale"]:
        """Apply a callback, unless it or a newer one was applied before."""
        job = self.open(callback.job_id)
        if webhook_id in job.seen:
            return "duplicate"
        if is_stale(job, callback, sequence):
            return "stale"
        job.seen.add(webhook_id or f"sequence {sequence}")
        job.sequence = sequence if sequence is not None else job.sequence
        self.take(callback)
        return "applied"

    def take(self, callback: Callback) -> None:
        """Store the content of a callback."""
        job = self.open(callback.job_id)
        job.called_back = True
        job.status = callback.status
        if callback.progress is not None:
            job.progress = callback.progress
        job.message = callback.message
        job.error_code, job.error_message = callback.error_code, callback.error_message
        job.result = callback.result


def is_stale(job: Job, callback: Callback, sequence: int | None) -> bool:
    """Return whether a newer callback was applied. Without sequence numbers, an ended job stays ended."""
    if sequence is not None and job.sequence is not None:
        return sequence <= job.sequence
    return job.called_back and job.status in ENDED and callback.status not in ENDED
