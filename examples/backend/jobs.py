"""The backend's jobs, in memory. A real backend puts them in its database; the rules in `apply` stay the same.

Callbacks come at least once: the same one can come twice (same `webhook-id`), and a late retry can arrive after a
newer one (`X-ML-Sequence` rises with every callback of a job). Both are acknowledged and otherwise ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pydantic import BaseModel, Field

MAX_JOBS = 1000
"""The oldest ones are forgotten beyond this: results can be large, and this store lives in memory."""

Status = Literal["accepted", "processing", "completed", "failed"]
ENDED = ("completed", "failed")


class Callback(BaseModel):
    """What the ML Server posts, v1.1 and v1.0 alike. Fields that this backend does not know are ignored."""

    job_id: str = Field(min_length=1, max_length=128)
    status: Status
    progress: int | None = Field(default=None, ge=0, le=100)
    message: str | None = None
    result: dict[str, Any] | None = None
    """Of a body over 50 MB: without `segments`, with `result_url`, a path on the ML Server."""
    error_code: str | None = None
    error_message: str | None = None


@dataclass(slots=True, kw_only=True)
class Job:
    """One video's processing, as far as the ML Server told."""

    job_id: str
    status: Status = "accepted"
    progress: int = 0
    message: str | None = None
    status_url: str | None = None
    estimated_time: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    result: dict[str, Any] | None = None
    heard: bool = False
    """Whether a callback was applied."""
    sequence: int | None = None
    """The newest `X-ML-Sequence` that was applied; None before the first callback."""
    seen: set[str] = field(default_factory=set)
    """The `webhook-id`s that were applied."""

    def public(self) -> dict[str, Any]:
        """What the frontend gets: no bookkeeping."""
        names = (item.name for item in fields(self))
        return {name: getattr(self, name) for name in names if name not in ("heard", "sequence", "seen")}


class JobStore:
    """All jobs, by id. Used from one event loop only, so no locks."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        return self._jobs.get(job_id)

    def open(self, job_id: str) -> Job:
        """The job; made where it is not known yet."""
        if job_id not in self._jobs:
            while len(self._jobs) >= MAX_JOBS:
                del self._jobs[next(iter(self._jobs))]
            self._jobs[job_id] = Job(job_id=job_id)
        return self._jobs[job_id]

    def started(self, job_id: str, answer: dict[str, Any]) -> None:
        """The ML Server took the job. A callback that was faster than this answer knows more, and stays."""
        job = self.open(job_id)
        job.status_url = answer.get("status_url")
        job.estimated_time = answer.get("estimated_time")
        if not job.heard:
            job.status = answer.get("status", "processing")
            job.message = answer.get("message")

    def not_started(self, job_id: str, code: str, message: str) -> None:
        """The call to the ML Server failed. After a time-out it may run the job all the same: callbacks then win."""
        job = self.open(job_id)
        if not job.heard:
            job.status, job.error_code, job.error_message = "failed", code, message

    def apply(
        self, callback: Callback, *, webhook_id: str | None, sequence: int | None
    ) -> Literal["applied", "duplicate", "stale"]:
        """Take a callback over, unless it was here before or a newer one was."""
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
        """Write down what a callback that counts says."""
        job = self.open(callback.job_id)
        job.heard = True
        job.status = callback.status
        if callback.progress is not None:
            job.progress = callback.progress
        job.message = callback.message
        job.error_code, job.error_message = callback.error_code, callback.error_message
        job.result = callback.result


def is_stale(job: Job, callback: Callback, sequence: int | None) -> bool:
    """Whether something newer was applied already. A server that sends no sequence cannot reopen an ended job."""
    if sequence is not None and job.sequence is not None:
        return sequence <= job.sequence
    return job.heard and job.status in ENDED and callback.status not in ENDED
