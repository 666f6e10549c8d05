"""The actor that admits jobs, has their actors supervised, sends due callbacks and prunes: one per cluster, detached.

What it knows is in the database, so it may die and come back at any time. Of several, the one with the lease works.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

import ray
from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from deployments.extraction.scratch import folder_name
from deployments.net.client import CallbackClient
from serve_app.callbacks import payloads, progress_tally
from serve_app.callbacks.sender import Sender
from serve_app.jobs.progress import Progress
from serve_app.observability import job_metrics
from serve_app.observability.tracing import Tracer
from serve_app.orchestration.attempt import until_stored
from serve_app.orchestration.background import BackgroundTasks
from serve_app.orchestration.job_actor import MANAGER_NAME, JobActors
from serve_app.orchestration.job_supervisor import JobSupervisor
from serve_app.orchestration.opening import open_stores
from serve_app.orchestration.prefetcher import Prefetcher
from serve_app.storage.clock_jumps import ClockJumpDetector, shift_back, shorten_waits
from serve_app.storage.database import open_database
from serve_app.storage.leases import BEAT_S, LEASE_S, Lease
from serve_app.storage.outbox import new_message_id
from serve_app.storage.server_state import set_draining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve_app.callbacks.progress_tally import Tries
    from serve_app.jobs.job import Job
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

TURN_S = 1.0
GATHER_S = 0.05
"""All calls of `wake` within this time after a turn are served by the next one."""
DELIVERIES, HEARTBEATS = 20, 50
"""Terminal callbacks, and heartbeats, that are tried at the same time."""
PRUNE_EVERY_S, PRUNE_PAUSE_S = 600.0, 0.05
SPARES_EVERY_S = 2.0
DAY_S = 86_400

log = logs.get_logger("manager")


class JobManager:
    """The loop, and the methods that other processes call; its parts do the work."""

    def __init__(self, settings: Settings, stages: StageHandles, since: float, actors: JobActors | None = None) -> None:
        """`since` is when this manager's release began, in epoch seconds: a later release replaces it."""
        logs.configure()
        self._settings = settings
        self._identity = settings.identity
        self._since = since
        self._extractor = stages.extractor
        self._actors = actors or JobActors(settings, stages)
        self._database = open_database(settings)
        self._stores = open_stores(settings, self._database)
        self._tracer = Tracer(settings, self._stores.jobs, process="manager")
        secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        self._clients = CallbackClient(settings.callbacks), CallbackClient(settings.callbacks)
        """One for heartbeats alone: those that hang take no connection from the ends of jobs."""
        self._sender, self._heartbeat_sender = (
            Sender(client, self._stores.outbox, secrets=secrets, trace_of=self._tracer.of_id)
            for client in self._clients
        )
        self._delivering: Counter[str] = Counter()
        """How many terminal callbacks are being tried, by receiver."""
        self._lease = Lease(self._database, MANAGER_NAME)
        self._leads: bool | None = None
        """Whether this manager has the lease; None until it has asked for the first time."""
        self._renewed_at = 0.0
        self._clock_jumps = ClockJumpDetector()
        self._back_s = 0.0
        self._job_metrics = job_metrics.JobMetrics(self._database, settings.limits)
        self._woken = asyncio.Event()
        self._tasks = BackgroundTasks()
        self._prefetcher = Prefetcher(
            settings=settings,
            stores=self._stores,
            extractor=self._extractor,
            tracer=self._tracer,
            tasks=self._tasks,
            wake=self._woken.set,
        )
        self._supervisor = JobSupervisor(
            settings=settings,
            stores=self._stores,
            actors=self._actors,
            prefetcher=self._prefetcher,
            extractor=self._extractor,
            tracer=self._tracer,
            tasks=self._tasks,
            wake=self._woken.set,
        )
        self._last_at: dict[str, float] = {}
        """When what is not done at each turn was done last, by the monotonic clock."""
        self._turned_at = time.monotonic()
        self._first_turn = asyncio.Event()
        self._loop = asyncio.get_running_loop().create_task(self._run())

    def __repr__(self) -> str:
        return f"JobManager({self._settings.limits.running_jobs} jobs at once)"

    async def wake(self) -> None:
        """Begin the next turn soon: there is something new in the job table."""
        self._woken.set()

    async def status(self) -> tuple[str, float, float]:
        """Return the identity of release and settings, `since`, and the seconds since the last whole turn."""
        await self._first_turn.wait()
        return self._identity, self._since, time.monotonic() - self._turned_at

    async def step_down(self) -> None:
        """End this actor, to make room for the manager of another release. Running jobs do not depend on it."""
        await self._stop()
        await self._tracer.close()
        ray.kill(ray.get_runtime_context().current_actor)

    async def drain(self) -> None:
        """Begin no work any more, and have all job actors give back theirs; return when they have ended.

        Their jobs go on with a new server. This manager stays and does nothing, so that no other is made. One that
        stands by has nothing to drain.
        """
        left: Sequence[Job] = await until_stored("", self._begin_drain) if self._leads else []
        await self._stop()
        for job in left:
            await self._actors.give_back(job)
        while left := [job for job in left if await self._actors.exists(job)]:  # noqa: ASYNC110 - Ray has no event
            await asyncio.sleep(GATHER_S)
        await self._tracer.close()

    def _begin_drain(self) -> Sequence[Job]:
        """Have no new attempt begin; return the jobs that run, none where another manager leads."""
        drains = set_draining(self._database, draining=True, lease=self._lease)
        return self._stores.queue.fetch_running_jobs() if drains else []

    async def count_progress(self, tries: Tries) -> None:
        """Count the progress callbacks that a job actor has sent or dropped."""
        progress_tally.count_all(tries)

    async def discard(self, job_id: str) -> None:
        """Stop fetching an ended job's video, and delete its audio."""
        self._prefetcher.cancel(job_id)
        self._tasks.start("discard", self._discard(job_id), key=job_id)

    # What a server of the release before calls these methods; to be removed with the release after this one.
    poke, look, leave = wake, status, step_down

    async def _stop(self) -> None:
        self._loop.cancel()
        self._tasks.cancel_all()
        try:
            await asyncio.to_thread(self._lease.give_back)  # another manager need not wait until it runs out
        except SQLAlchemyError:
            log.warning("the lease is not given back; it runs out")
        for client in self._clients:
            await client.close()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                if await self._may_work():
                    await self._turn()
                self._turned_at = time.monotonic()
            except Exception:
                log.exception("a turn failed")
            ended = time.monotonic()
            self._first_turn.set()
            try:
                async with asyncio.timeout(TURN_S):
                    await self._woken.wait()
                    await asyncio.sleep(ended + GATHER_S - time.monotonic())
            except TimeoutError:
                continue

    async def _may_work(self) -> bool:
        """Renew the lease where that is due; return whether this manager has it."""
        try:
            await self._correct_clock()
            if not self._leads or time.monotonic() - self._renewed_at >= BEAT_S:
                await self._renew_lease()
        except SQLAlchemyError:
            self._supervisor.restart_watch()  # job actors cannot write either
            if self._leads and time.monotonic() - self._renewed_at > LEASE_S:
                self._tasks.start("unblocking", self._supervisor.kill_unresponsive())
            raise
        return bool(self._leads)

    async def _correct_clock(self) -> None:
        """Correct stored times when the machine's clock was set back."""
        self._back_s += self._clock_jumps.set_back_s()
        if self._leads and self._back_s:
            log.warning("the clock was set back", extra={"seconds": round(self._back_s)})
            await asyncio.to_thread(shift_back, self._database, self._back_s)
        self._back_s = 0.0

    async def _renew_lease(self) -> None:
        leads = await asyncio.to_thread(self._lease.hold)
        self._renewed_at = time.monotonic()
        if leads and not self._leads:
            log.info("this manager works")
            await asyncio.to_thread(self._reset_what_was_unfinished)
            self._supervisor.restart_watch()
        elif not leads and self._leads is not False:
            log.warning("another manager works on this database: this one stands by")
            self._job_metrics.clear()
        self._leads = leads

    def _reset_what_was_unfinished(self) -> None:
        """End the drain, and have fetched and tried again in time what the manager before was at."""
        set_draining(self._database, draining=False, lease=self._lease)
        self._stores.queue.reset_prefetch()
        shorten_waits(self._database)

    async def _turn(self) -> None:
        for job in await asyncio.to_thread(self._stores.queue.admit_jobs):
            log.info("admitted", extra=logs.about(job.job_id, waited_s=round(time.time() - job.queued_at, 3)))
        running = await asyncio.to_thread(self._stores.queue.fetch_running_jobs)
        self._supervisor.supervise(running)
        await self._send_due_callbacks()
        await self._prefetcher.fetch_ahead()
        if not self._supervisor.is_starting and self._is_due("spare processes", SPARES_EVERY_S):
            self._tasks.start("spare processes", self._actors.fill_spares())
        if self._is_due("job metrics", job_metrics.EVERY_S):
            self._tasks.start("job metrics", asyncio.to_thread(self._job_metrics.collect))
        if self._is_due("prune", PRUNE_EVERY_S):
            self._tasks.start("prune", self._prune())
            self._tasks.start("orphans", self._supervisor.kill_orphans(running))

    def _is_due(self, work: str, every_s: float) -> bool:
        """Return True if the last True for `work` was `every_s` seconds ago or longer; the first time at once."""
        now = time.monotonic()
        if now - self._last_at.get(work, -math.inf) <= every_s:
            return False
        self._last_at[work] = now
        return True

    async def _send_due_callbacks(self) -> None:
        """Start to send heartbeats of waiting jobs, and terminal callbacks whose first try, the job actor's, failed."""
        free = HEARTBEATS - self._tasks.count("heartbeat")
        if free > 0:
            for job in await asyncio.to_thread(
                self._stores.queue.take_due_heartbeats, since_s=self._settings.heartbeat_s, limit=free
            ):
                self._tasks.start("heartbeat", self._send_heartbeat(job), key=job.job_id)
        free = DELIVERIES - self._delivering.total()
        if free > 0:
            for callback_id, job_id, receiver in await asyncio.to_thread(
                self._stores.outbox.due, free, dict(self._delivering)
            ):
                self._tasks.cancel("heartbeat", job_id)  # it must not arrive after the job's end
                self._tasks.start("delivery", self._deliver(callback_id, receiver), key=callback_id)

    async def _deliver(self, callback_id: str, receiver: str) -> None:
        self._delivering[receiver] += 1
        try:
            await self._sender.deliver(callback_id)
        finally:
            self._delivering[receiver] -= 1
            self._delivering += Counter()  # forgets those at 0
            self._woken.set()  # the next one that is due need not wait for a turn

    async def _send_heartbeat(self, job: Job) -> None:
        now = Progress(percent=job.progress, stage=job.stage)
        body = payloads.progress(job.job_id, now, locale=self._settings.locale)
        await self._heartbeat_sender.send_progress(
            job.job_id, str(job.callback_url), body, message_id=new_message_id(), sequence=job.sequence
        )

    async def _prune(self) -> None:
        """Delete jobs that ended before the retention period, and audio whose job is gone or has ended."""
        oldest = time.time() - self._settings.retention_days * DAY_S
        while await asyncio.to_thread(self._stores.queue.delete_old_jobs, oldest):  # noqa: ASYNC110 - no event
            await asyncio.sleep(PRUNE_PAUSE_S)  # some at a time, 50 MB or so: others want to write, too
        stored = set(await self._extractor.kept_jobs.remote())  # first: what comes later is a known job's
        unfinished = await asyncio.to_thread(self._stores.queue.fetch_unfinished_ids)
        if lost := stored - {name for job_id in unfinished for name in (folder_name(job_id), job_id)}:
            await self._extractor.discard_folders.remote(sorted(lost))

    async def _discard(self, job_id: str) -> None:
        """Delete the audio of an ended job."""
        await self._extractor.discard.remote(job_id)
