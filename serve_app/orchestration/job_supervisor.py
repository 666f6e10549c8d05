"""Sees to it that each running job has a living actor, and that cancelled and overdue jobs end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from deployments import logs
from deployments.errors import InternalJobError
from serve_app.jobs.job import Attempt, Outcome
from serve_app.jobs.states import JobState
from serve_app.observability.canonical_log import log_end
from serve_app.orchestration.deadlines import Deadlines
from serve_app.storage.leases import LEASE_S, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.errors import JobError
    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Tracer
    from serve_app.orchestration.background import BackgroundTasks
    from serve_app.orchestration.callback_delivery import CallbackDelivery
    from serve_app.orchestration.janitor import Janitor
    from serve_app.orchestration.job_actors import JobActors
    from serve_app.orchestration.prefetcher import Prefetcher
    from serve_app.settings import Settings
    from serve_app.storage.stores import Stores

STARTS_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
"""Job actors that start at the same time: each takes a core for a second or more, and requests want answers."""
ANSWER_S = 60.0
"""An actor that does not answer for so long after its start is treated as one that works: its beats are watched."""

log = logs.get_logger("manager")


class JobSupervisor:
    """Start, watch, cancel and replace the actors of running jobs."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        actors: JobActors,
        *,
        prefetcher: Prefetcher,
        delivery: CallbackDelivery,
        janitor: Janitor,
        tracer: Tracer,
        tasks: BackgroundTasks,
        wake: Callable[[], None],
    ) -> None:
        """`wake` begins the manager's next turn."""
        self._settings = settings
        self._stores = stores
        self._actors = actors
        self._prefetcher = prefetcher
        self._delivery = delivery
        self._janitor = janitor
        self._tracer = tracer
        self._tasks = tasks
        self._wake = wake
        self._deadlines = Deadlines(settings.limits)
        self._beats = Watch()
        self._starting = 0

    def supervise(self, running: Sequence[Job]) -> None:
        """Start a look at each running job, and forget all others."""
        for job in running:
            self._tasks.start("supervision", self._supervise(job), key=job.job_id)
        ids = {job.job_id for job in running}
        self._deadlines.retain_only(ids)
        self._beats.retain_only(ids)

    def restart_watch(self) -> None:
        """Count no time in which job actors may have been kept from writing their beats."""
        self._beats.reset()

    async def kill_unresponsive(self) -> None:
        """Kill actors whose process does not run: on SQLite, one stopped within a write keeps all from writing."""
        for job in await asyncio.to_thread(self._stores.queue.fetch_running_jobs):
            if await self._actors.exists(job) and not await self._actors.is_responsive(job):
                log.warning("a job actor hangs while the database cannot be written", extra=logs.about(job.job_id))
                await self._actors.kill(job)

    async def _supervise(self, job: Job) -> None:
        if overdue := self._deadlines.overdue(job):
            await self._end(job, overdue)
            return
        async with asyncio.timeout(ANSWER_S):
            if not await self._actors.exists(job):
                if job.attempt >= self._settings.limits.attempts:
                    await self._end(job, InternalJobError())
                elif not self._prefetcher.must_finish_first(job):
                    await self._start_actor(job)
            elif self._beats.unchanged_s(job.job_id, (job.run, job.attempt, job.beats)) > LEASE_S:
                log.warning("a job actor stands still", extra=logs.about(job.job_id, run=job.run, attempt=job.attempt))
                self._beats.forget(job.job_id)
                await self._actors.kill(job)
                self._wake()
            elif job.cancel_requested:
                await self._actors.cancel(job)

    async def _start_actor(self, job: Job) -> None:
        """Start a job's actor unless enough others are starting; the end of each start begins another turn."""
        if self._starting >= STARTS_AT_ONCE:
            return
        self._starting += 1
        try:
            now = await asyncio.to_thread(self._stores.jobs.fetch_job, job.job_id)
            if now is not None and (now.run, now.state) == (job.run, JobState.RUNNING):
                log.info("job actor starts", extra=logs.about(now.job_id, run=now.run, attempts_before=now.attempt))
                self._delivery.stop_heartbeat(now.job_id)
                self._deadlines.count_start(now.job_id)
                self._beats.forget(now.job_id)
                await self._actors.start(now)
        finally:
            self._starting -= 1
            self._wake()

    async def _end(self, job: Job, error: JobError) -> None:
        """End a job with an error, after its actor."""
        if not await self._actors.kill(job):
            log.info("a job without an actor is ended", extra=logs.about(job.job_id))
        outcome = Outcome(error_code=error.code, error_message=error.sentence(self._settings.locale))
        attempt = Attempt(job_id=job.job_id, run=job.run, number=job.attempt)
        if await asyncio.to_thread(self._stores.attempts.finish_job, attempt, outcome):
            log_end(job, outcome, seconds=job.spent_s)
            await self._tracer.ended(job)
            await self._janitor.discard_now(job.job_id)
