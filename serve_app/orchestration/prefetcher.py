"""Extracts the audio of waiting jobs ahead of their turn, before the URLs of their videos expire."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import logs
from deployments.errors import OutOfResourcesError
from serve_app.jobs.job import Prefetch
from serve_app.pipeline.stage_calls import TRANSIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Tracer
    from serve_app.orchestration.background import BackgroundTasks
    from serve_app.orchestration.opening import Stores
    from serve_app.settings import Settings

TRIES = 3
"""For a video that is not to blame: the replica died, or the disk was full."""
RETRY_WAIT_S = 2.0
URL_MARGIN_S = 60.0
"""A job's actor starts and asks for the video in less."""
BLAMELESS = (*TRANSIENT, OutOfResourcesError)

log = logs.get_logger("manager")


@dataclass(kw_only=True, eq=False)
class Prefetcher:
    """Fetch while all slots are taken and the disk has room, the URL that expires first before the others."""

    settings: Settings
    stores: Stores
    extractor: Any
    """The handle of the extractor's deployment."""
    tracer: Tracer
    tasks: BackgroundTasks
    wake: Callable[[], None]
    """Begins the manager's next turn."""
    _tries: dict[str, int] = field(default_factory=dict, init=False)

    async def fetch_ahead(self) -> None:
        """Start as many fetches as the limits and the disk allow."""
        limits = self.settings.limits
        free = limits.prefetches - self.tasks.count("fetch")
        counts = await asyncio.to_thread(self.stores.jobs.count_jobs)
        if free <= 0 or counts.running < limits.running_jobs or self._free_bytes() < limits.prefetch_bytes:
            return
        if not counts.queued:
            self._tries.clear()
        found = await asyncio.to_thread(self.stores.queue.select_jobs_to_prefetch, limits.prefetches)
        for job in [job for job in found if not self.tasks.is_running("fetch", job.job_id)][:free]:
            await asyncio.to_thread(self.stores.queue.set_prefetch, job, Prefetch.RUNNING)
            self.tasks.start("fetch", self._fetch(job), key=job.job_id)

    def must_finish_first(self, job: Job) -> bool:
        """Return whether a job that has its slot must wait for its fetch: another one might find the URL expired."""
        fetched = self.tasks.is_running("fetch", job.job_id) and not job.cancel_requested
        return fetched and job.video_expires_at < time.time() + URL_MARGIN_S

    def cancel(self, job_id: str) -> None:
        """Stop fetching a job's video."""
        self.tasks.cancel("fetch", job_id)

    def _free_bytes(self) -> int:
        """Return the room for audio, and for a video meanwhile; scratch on remote storage is not looked at."""
        extractor = self.settings.extractor
        places = (Path(extractor.scratch_url.removeprefix("file://")), extractor.temp_dir)
        return min((shutil.disk_usage(place).free for place in places if place and place.exists()), default=sys.maxsize)

    async def _fetch(self, job: Job) -> None:
        """Extract a job's audio; a fault of the video is left for the job's own attempt to report."""
        state = Prefetch.FAILED
        run = f"{job.job_id}/{job.run_id}"
        tries = self._tries[run] = self._tries.get(run, 0) + 1
        fetching: Any = None
        try:
            with self.tracer.of(job).span("fetch ahead", number=tries):
                fetching = self.extractor.prepare.remote(
                    job.job_id, job.run_id, job.video_url, None, job.options.asked_language, **job.options.selection
                )
                await fetching
            state = Prefetch.DONE
        except asyncio.CancelledError:
            fetching.cancel()
            state = Prefetch.NONE  # this server stops: the next one fetches it
            raise
        except Exception as error:  # noqa: BLE001 - the job's own attempt tries again and reports
            log.info("fetching ahead failed", extra=logs.about(job.job_id, error=type(error).__name__))
            if isinstance(getattr(error, "cause", error), BLAMELESS) and tries < TRIES:
                await asyncio.sleep(RETRY_WAIT_S)
                state = Prefetch.NONE  # fetch again: the URL may expire before the job's turn
        finally:
            if state is not Prefetch.NONE:
                self._tries.pop(run, None)
            await asyncio.to_thread(self.stores.queue.set_prefetch, job, state)
            self.wake()  # the next fetch need not wait for a turn
