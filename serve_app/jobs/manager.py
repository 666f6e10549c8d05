"""The actor that admits jobs and looks after what nobody else does: one per cluster, detached, stateless.

All that it knows is in the database, so it may die and come back at any time. Each turn of its loop: admit what
may run, start the drivers that are missing, pass cancellations on, tell the backends of waiting jobs that they wait,
deliver what is due, fetch ahead, clear away what is old.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayActorError

from deployments import logs
from deployments.errors import CancelledJobError, InternalJobError, ProcessingTimeoutError
from deployments.net.client import CallbackClient
from serve_app.callbacks import payloads
from serve_app.callbacks.sender import Sender
from serve_app.jobs.driver import NAMESPACE, JobDriver, actor_name
from serve_app.jobs.model import Attempt, Job, Outcome
from serve_app.jobs.opening import open_store
from serve_app.jobs.progress import Progress, Stage
from serve_app.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ray.actor import ActorHandle

    from deployments.errors import JobError
    from serve_app.jobs.pipeline import Stages
    from serve_app.settings import Settings

MANAGER_NAME = "job-manager"
TURN_S = 1.0
DELIVERIES = 20
"""Terminal callbacks that are tried at the same time."""
PRUNE_EVERY_S = 600.0
DEADLINE_GRACE_S = 30.0
"""How long after its deadline a driver may take to end its job itself."""
CANCEL_GRACE_S = 10.0

log = logs.get_logger("manager")


class JobManager:
    """Ten at once, the others in order."""

    def __init__(self, settings: Settings, stages: Stages) -> None:
        logs.configure()
        self._settings = settings
        self._stages = stages
        self._store, self._outbox = open_store(settings)
        self._client = CallbackClient(settings.callback_policy)
        secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        self._sender = Sender(self._client, self._outbox, secrets=secrets)
        self._poked = asyncio.Event()
        self._busy: dict[str, asyncio.Task[Any]] = {}
        self._cancelled_at: dict[str, float] = {}
        self._pruned_at = 0.0
        self._turned_at = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._live())

    def __repr__(self) -> str:
        return "JobManager"

    async def poke(self) -> None:
        """There is something new in the job table."""
        self._poked.set()

    async def release(self) -> str:
        """Which release and settings this manager works by."""
        return self._settings.identity

    async def silent_s(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._turned_at

    async def leave(self) -> None:
        """Make room for a manager of another release. Jobs go on: their drivers do not depend on it."""
        self._task.cancel()
        await asyncio.gather(self._task, *self._busy.values(), return_exceptions=True)
        await self._client.close()
        ray.kill(ray.get_runtime_context().current_actor)

    async def discard(self, job_id: str) -> None:
        """Delete what the extractor kept of a job."""
        self._once(f"discard:{job_id}", self._discard(job_id))

    async def _live(self) -> None:
        await asyncio.to_thread(self._store.reset_prefetch)
        while True:
            self._poked.clear()
            try:
                await self._turn()
            except Exception:
                log.exception("a turn failed")
            self._turned_at = time.monotonic()
            try:
                async with asyncio.timeout(TURN_S):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> None:
        for job in await asyncio.to_thread(self._store.admit):
            log.info("admitted", extra=logs.about(job.job_id, waited_s=round(time.time() - job.queued_at, 3)))
        for job in await asyncio.to_thread(self._store.running):
            self._once(f"drive:{job.job_id}", self._look_after(job))
        for job in await asyncio.to_thread(self._store.waiting_untold, since_s=self._settings.heartbeat_s):
            self._once(f"tell:{job.job_id}", self._tell_waiting(job))
        await self._deliver_due()
        await self._fetch_ahead()
        if time.monotonic() - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            self._once("prune", self._prune())

    def _once(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside the loop unless the same is being done."""
        if key in self._busy:
            work.close()
            return
        task = self._busy[key] = asyncio.create_task(work)

        def ended(_: asyncio.Task[None]) -> None:
            del self._busy[key]
            if not task.cancelled() and (error := task.exception()):
                log.error("%s failed", key.partition(":")[0], exc_info=error)

        task.add_done_callback(ended)

    async def _look_after(self, job: Job) -> None:
        """See to it that a running job has a driver, that a cancelled one stops, and that a late one ends."""
        if overdue := self._overdue(job):
            await self._end(job, overdue)
            return
        driver = await self._driver(job)
        if driver is not None and job.cancel_requested:
            since = self._cancelled_at.setdefault(job.job_id, time.monotonic())
            if time.monotonic() - since > CANCEL_GRACE_S:
                await self._end(job, CancelledJobError())
            else:
                await driver.cancel.remote()

    def _overdue(self, job: Job) -> JobError | None:
        limits = self._settings.limits
        if job.spent_s > limits.processing_s + DEADLINE_GRACE_S:
            return ProcessingTimeoutError(limit_min=limits.processing_s / 60)
        if job.attempt > limits.attempts:
            return InternalJobError()
        return None

    async def _driver(self, job: Job) -> ActorHandle[Any] | None:
        """The job's driver, started where there is none; None where the job has ended meanwhile."""
        name = actor_name(job.job_id)
        try:
            return await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
        except ValueError:
            now = await asyncio.to_thread(self._store.get, job.job_id)
            if now is None or (now.run, now.state) != (job.run, JobState.RUNNING):
                return None
        log.info("driver starts", extra=logs.about(job.job_id, run=job.run, attempts_before=job.attempt))
        self._cancelled_at.pop(job.job_id, None)
        me = ray.get_runtime_context().current_actor
        driver: Any = (
            ray.remote(JobDriver)
            .options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                num_cpus=0,
                max_concurrency=100,
            )
            .remote(job.job_id, job.run, self._settings, self._stages, me)
        )
        await driver.ping.remote()
        return cast("ActorHandle[Any]", driver)

    async def _end(self, job: Job, error: JobError) -> None:
        """End a job whose driver cannot."""
        outcome = Outcome(error_code=error.code, error_message=error.sentence(self._settings.locale))
        attempt = Attempt(job_id=job.job_id, run=job.run, number=job.attempt)
        await asyncio.to_thread(self._store.finish, attempt, outcome)
        try:
            ray.kill(await asyncio.to_thread(ray.get_actor, actor_name(job.job_id), NAMESPACE))
        except ValueError:
            return

    async def _tell_waiting(self, job: Job) -> None:
        if job.callback_url is None or job.state is not JobState.QUEUED:
            return
        waiting = payloads.progress(job.job_id, Progress(percent=0, stage=Stage.QUEUED), locale=self._settings.locale)
        await self._sender.tell(job.callback_url, waiting, message_id=payloads.new_message_id(), sequence=job.sequence)

    async def _deliver_due(self) -> None:
        for callback_id in await asyncio.to_thread(self._outbox.due, DELIVERIES):
            self._once(f"deliver:{callback_id}", self._deliver(callback_id))

    async def _deliver(self, callback_id: str) -> None:
        await self._sender.deliver(callback_id)

    async def _fetch_ahead(self) -> None:
        limits = self._settings.limits
        free = limits.prefetches - sum(key.startswith("fetch:") for key in self._busy)
        counts = await asyncio.to_thread(self._store.counts)
        if free <= 0 or counts.running < limits.running_jobs or self._free_bytes() < limits.prefetch_bytes:
            return
        for job in await asyncio.to_thread(self._store.to_prefetch, free):
            await asyncio.to_thread(self._store.set_prefetch, job, "running")
            self._once(f"fetch:{job.job_id}", self._fetch(job))

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._settings.directory).free

    async def _fetch(self, job: Job) -> None:
        """Extract a waiting job's audio before its URL expires; a failure is left to its turn."""
        state = "failed"
        try:
            await self._stages.extractor.prepare.remote(job.job_id, job.run, job.video_url, None)
            state = "done"
        except (RayActorError, Exception) as error:  # noqa: BLE001 - the driver tries again and reports
            log.info("fetching ahead failed", extra=logs.about(job.job_id, error=type(error).__name__))
        finally:
            await asyncio.to_thread(self._store.set_prefetch, job, state)

    async def _prune(self) -> None:
        """Delete the rows of jobs that are older than the retention."""
        keep_s = self._settings.retention_days * 86_400
        for job in await asyncio.to_thread(self._store.ended_before, time.time() - keep_s):
            await asyncio.to_thread(self._store.delete, job.job_id)
            await self._discard(job.job_id)

    async def _discard(self, job_id: str) -> None:
        await self._stages.extractor.discard.remote(job_id)
