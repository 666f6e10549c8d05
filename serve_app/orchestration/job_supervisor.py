"""Sees to it that each running job has a living actor, and that cancelled and overdue jobs end."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployments import logs
from deployments.errors import CancelledJobError, InternalJobError, ProcessingTimeoutError
from serve_app.jobs.job import Attempt, Outcome
from serve_app.jobs.states import JobState
from serve_app.observability.canonical_log import log_end
from serve_app.storage.leases import LEASE_S, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.errors import JobError
    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Tracer
    from serve_app.orchestration.background import BackgroundTasks
    from serve_app.orchestration.job_actor import JobActors
    from serve_app.orchestration.opening import Stores
    from serve_app.orchestration.prefetcher import Prefetcher
    from serve_app.settings import Settings

STARTS_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
"""Job actors that start at the same time: each takes a core for a second or more, and requests want answers."""
ANSWER_S = 60.0
"""An actor that does not answer for so long after its start is treated as one that works: its beats are watched."""
DEADLINE_GRACE_S = 5.0
"""How long after its deadline a job's actor may take to end the job."""
CANCEL_GRACE_S = 10.0
STARTS_PER_ATTEMPT = 3
"""Actors that die before they can count an attempt are not started for ever."""

log = logs.get_logger("manager")


@dataclass(kw_only=True, eq=False)
class JobSupervisor:
    """Start, watch, cancel and replace the actors of running jobs."""

    settings: Settings
    stores: Stores
    actors: JobActors
    prefetcher: Prefetcher
    extractor: Any
    """The handle of the extractor's deployment."""
    tracer: Tracer
    tasks: BackgroundTasks
    wake: Callable[[], None]
    """Begins the manager's next turn."""

    def __post_init__(self) -> None:
        self._beats = Watch()
        self._runs = Watch()
        self._cancelled_at: dict[str, float] = {}
        self._starts: dict[str, int] = {}
        self._starting = 0
        self._orphans: set[str] = set()
        """Actors that had no running job at the last look."""

    @property
    def is_starting(self) -> bool:
        """Whether a job's actor is being started."""
        return self._starting > 0

    def supervise(self, running: Sequence[Job]) -> None:
        """Start a look at each running job, and forget all others."""
        for job in running:
            self.tasks.start("supervision", self._supervise(job), key=job.job_id)
        ids = {job.job_id for job in running}
        self._beats.retain_only(ids)
        self._runs.retain_only(ids)
        for known in (self._cancelled_at, self._starts):
            for job_id in known.keys() - ids:
                del known[job_id]

    def restart_watch(self) -> None:
        """Count no time in which job actors may have been kept from writing their beats."""
        self._beats.reset()

    async def kill_unresponsive(self) -> None:
        """Kill actors whose process does not run: on SQLite, one stopped within a write keeps all from writing."""
        for job in await asyncio.to_thread(self.stores.queue.fetch_running_jobs):
            if await self.actors.exists(job) and not await self.actors.is_responsive(job):
                log.warning("a job actor hangs while the database cannot be written", extra=logs.about(job.job_id))
                await self.actors.kill(job)

    async def kill_orphans(self, running: Sequence[Job]) -> None:
        """Kill actors that had no running job at two looks: after one look, an end may still be being sent."""
        orphans = await self.actors.find_orphans(running)
        for name in orphans & self._orphans:
            log.warning("a job actor without a job is killed", extra={"driver": name})
            await self.actors.kill_by_name(name)
        self._orphans = orphans

    async def _supervise(self, job: Job) -> None:
        if overdue := self._overdue(job):
            await self._end(job, overdue)
            return
        async with asyncio.timeout(ANSWER_S):
            if not await self.actors.exists(job):
                if job.attempt >= self.settings.limits.attempts:
                    await self._end(job, InternalJobError())
                elif not self.prefetcher.must_finish_first(job):
                    await self._start_actor(job)
            elif self._beats.unchanged_s(job.job_id, (job.run_id, job.attempt, job.beats)) > LEASE_S:
                log.warning("a job actor stands still", extra=logs.about(job.job_id, run=job.run, attempt=job.attempt))
                self._beats.forget(job.job_id)
                await self.actors.kill(job)
                self.wake()
            elif job.cancel_requested:
                await self.actors.cancel(job)

    def _overdue(self, job: Job) -> JobError | None:
        """Return the error with which a job must end now, by no clock that can be set; None while it may go on."""
        limits = self.settings.limits
        if job.cancel_requested:
            since = self._cancelled_at.setdefault(job.job_id, time.monotonic())
            return CancelledJobError() if time.monotonic() - since > CANCEL_GRACE_S else None
        idle_s = self._runs.unchanged_s(job.job_id, job.run_id) - job.spent_s
        if max(job.spent_s, idle_s) > limits.processing_s + DEADLINE_GRACE_S:
            return ProcessingTimeoutError(limit_min=limits.processing_s / 60)
        if job.attempt > limits.attempts or self._starts.get(job.job_id, 0) > STARTS_PER_ATTEMPT * limits.attempts:
            return InternalJobError()
        return None

    async def _start_actor(self, job: Job) -> None:
        """Start a job's actor unless enough others are starting; the end of each start begins another turn."""
        if self._starting >= STARTS_AT_ONCE:
            return
        self._starting += 1
        try:
            now = await asyncio.to_thread(self.stores.jobs.fetch_job, job.job_id)
            if now is not None and (now.run_id, now.state) == (job.run_id, JobState.RUNNING):
                log.info("job actor starts", extra=logs.about(now.job_id, run=now.run, attempts_before=now.attempt))
                self.tasks.cancel("heartbeat", now.job_id)  # it must not arrive after what the actor sends
                self._starts[now.job_id] = self._starts.get(now.job_id, 0) + 1
                self._beats.forget(now.job_id)
                await self.actors.start(now)
        finally:
            self._starting -= 1
            self.wake()

    async def _end(self, job: Job, error: JobError) -> None:
        """End a job with an error, after its actor."""
        if not await self.actors.kill(job):
            log.info("a job without an actor is ended", extra=logs.about(job.job_id))
        outcome = Outcome(error_code=error.code, error_message=error.sentence(self.settings.locale))
        attempt = Attempt.of(job)
        if await asyncio.to_thread(self.stores.attempts.finish_job, attempt, outcome):
            log_end(job, outcome, seconds=job.spent_s)
            await self.tracer.ended(job)
            await self.extractor.discard.remote(job.job_id, job.run_id)
