"""Clears away what is no longer needed: old jobs, audio of ended jobs, actors without a job."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from deployments import logs
from serve_app.orchestration.background import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.jobs.job import Job
    from serve_app.orchestration.background import BackgroundTasks
    from serve_app.orchestration.job_actors import JobActors
    from serve_app.settings import Settings
    from serve_app.storage.stores import Stores

PRUNE_EVERY_S = 600.0
DAY_S = 86_400

log = logs.get_logger("manager")


class Janitor:
    """Prune the database, the extractor's scratch and Ray's actors, every ten minutes."""

    def __init__(
        self, settings: Settings, stores: Stores, extractor: Any, actors: JobActors, tasks: BackgroundTasks
    ) -> None:
        """`extractor` is the handle of the extractor's deployment."""
        self._retention_s = settings.retention_days * DAY_S
        self._stores = stores
        self._extractor = extractor
        self._actors = actors
        self._tasks = tasks
        self._interval = Interval(PRUNE_EVERY_S)
        self._orphans: set[str] = set()
        """Actors that had no running job at the last look."""

    def clean_up_if_due(self, running: Sequence[Job]) -> None:
        """Start to prune, and to kill all actors but those of the running jobs."""
        if self._interval.is_due():
            self._tasks.start("prune", self._prune())
            self._tasks.start("orphans", self._kill_orphans(running))

    def discard(self, job_id: str) -> None:
        """Start to delete the audio of an ended job."""
        self._tasks.start("discard", self.discard_now(job_id), key=job_id)

    async def discard_now(self, job_id: str) -> None:
        """Delete the audio of an ended job."""
        await self._extractor.discard.remote(job_id)

    async def _prune(self) -> None:
        """Delete jobs that ended before the retention period, and audio whose job is gone or has ended."""
        oldest = time.time() - self._retention_s
        while await asyncio.to_thread(self._stores.queue.delete_old_jobs, oldest):  # some at a time
            pass
        for job_id in await self._extractor.kept_jobs.remote():
            job_now = await asyncio.to_thread(self._stores.jobs.fetch_job, job_id)
            if job_now is None or job_now.state.ended:
                await self.discard_now(job_id)

    async def _kill_orphans(self, running: Sequence[Job]) -> None:
        """Kill actors that had no running job at two looks: one look is not enough, an end may still be being sent."""
        orphans = await self._actors.find_orphans({(job.job_id, job.run) for job in running})
        for name in orphans & self._orphans:
            log.warning("a job actor without a job is killed", extra={"driver": name})
            await self._actors.kill_by_name(name)
        self._orphans = orphans
