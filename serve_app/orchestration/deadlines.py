"""When the manager has to end a job itself, because the job's own actor has not. Knows nothing of actors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deployments.errors import CancelledJobError, InternalJobError, ProcessingTimeoutError
from serve_app.storage.leases import Watch

if TYPE_CHECKING:
    from collections.abc import Collection

    from deployments.errors import JobError
    from serve_app.jobs.job import Job
    from serve_app.settings import Limits

DEADLINE_GRACE_S = 5.0
"""How long after its deadline a job's actor may take to end the job."""
CANCEL_GRACE_S = 10.0
STARTS_PER_ATTEMPT = 3
"""Actors that die before they can count an attempt are not started for ever."""


class Deadlines:
    """Watch the time and the starts of running jobs, by no clock that can be set."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._runs = Watch()
        self._starts: dict[str, int] = {}
        self._cancelled_at: dict[str, float] = {}

    def count_start(self, job_id: str) -> None:
        """Count an actor that is started for a job."""
        self._starts[job_id] = self._starts.get(job_id, 0) + 1

    def overdue(self, job: Job) -> JobError | None:
        """Return the error that a job is to end with now, None while it may go on."""
        limits = self._limits
        if job.cancel_requested:
            since = self._cancelled_at.setdefault(job.job_id, time.monotonic())
            return CancelledJobError() if time.monotonic() - since > CANCEL_GRACE_S else None
        idle_s = self._runs.unchanged_s(job.job_id, job.run) - job.spent_s
        if max(job.spent_s, idle_s) > limits.processing_s + DEADLINE_GRACE_S:
            return ProcessingTimeoutError(limit_min=limits.processing_s / 60)
        if job.attempt > limits.attempts or self._starts.get(job.job_id, 0) > STARTS_PER_ATTEMPT * limits.attempts:
            return InternalJobError()
        return None

    def retain_only(self, job_ids: Collection[str]) -> None:
        """Forget all other jobs."""
        self._runs.retain_only(job_ids)
        for known in (self._starts, self._cancelled_at):
            for job_id in known.keys() - job_ids:
                del known[job_id]
