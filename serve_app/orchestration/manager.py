"""The actor that admits jobs and looks after what nobody else does: one per cluster, detached, stateless.

All that it knows is in the database, so it may die and come back at any time. Each turn of its loop: admit what
may run, start the drivers that are missing or stand still, pass cancellations on, tell the backends of waiting jobs
that they wait, deliver what is due, fetch ahead, clear away what is old. Of several on one database, one works.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from deployments.errors import CancelledJobError, InternalJobError, OutOfResourcesError, ProcessingTimeoutError
from deployments.net.client import CallbackClient
from serve_app.callbacks import payloads
from serve_app.callbacks.sender import Sender
from serve_app.jobs.job import Attempt, Job, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.states import JobState
from serve_app.observability import job_metrics
from serve_app.observability.canonical_log import log_end
from serve_app.observability.tracing import Tracer
from serve_app.orchestration.job_actor import MANAGER_NAME
from serve_app.orchestration.job_actors import JobActors
from serve_app.pipeline.stage_client import TRANSIENT
from serve_app.storage import drain
from serve_app.storage.clock_jumps import WallClock, bring_back, plan_anew
from serve_app.storage.leases import BEAT_S, LEASE_S, Lease, Watch
from serve_app.storage.opening import open_database, open_store

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from deployments.errors import JobError
    from serve_app.pipeline.pipeline import Stages
    from serve_app.settings import Settings

TURN_S = 1.0
GATHER_S = 0.05
"""One turn serves all that poke within this time."""
DELIVERIES = 20
"""Terminal callbacks that are tried at the same time."""
PRUNE_EVERY_S = 600.0
DEADLINE_GRACE_S = 5.0
"""How long after its deadline a driver may take to end its job itself."""
CANCEL_GRACE_S = 10.0
STARTS_PER_ATTEMPT = 3
"""JobActors that die before they can count an attempt are not started for ever."""
FETCH_TRIES, FETCH_AGAIN_S = 3, 2.0
"""Of fetching ahead, where the video is not to blame: its replica died, or the disk was full."""
URL_MARGIN_S = 60.0
"""A driver starts and asks for the video in less."""
DRIVER_STARTS = max(1, (os.cpu_count() or 1) // 2)
"""Job actors that start at the same time: each takes a core for a second or more, and requests want answers."""
DRIVER_ANSWER_S = 60.0
"""A driver that does not answer for so long after its start is looked at as one that works: its beats tell."""

log = logs.get_logger("manager")


class JobManager:
    """Ten at once, the others in order."""

    def __init__(self, settings: Settings, stages: Stages, since: float, drivers: JobActors | None = None) -> None:
        """`since` is when the release that this manager belongs to began: a later one replaces it."""
        logs.configure()
        self._settings = settings
        self._stages = stages
        self._since = since
        self._drivers = drivers or JobActors(settings, stages)
        self._database = open_database(settings)
        self._store, self._outbox = open_store(settings, self._database)
        self._lease = Lease(self._database, MANAGER_NAME)
        self._leads: bool | None = None
        self._renewed_at = 0.0
        self._clock = WallClock()
        self._back_s = 0.0
        self._beats = Watch()
        self._slots = Watch()
        self._strays: set[str] = set()
        self._job_metrics = job_metrics.JobMetrics(self._database, settings.limits)
        self._client = CallbackClient(settings.callback_policy)
        secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        self._tracer = Tracer(settings, self._store, process="manager")
        self._sender = Sender(self._client, self._outbox, secrets=secrets, trace_of=self._tracer.of_id)
        self._poked = asyncio.Event()
        self._busy: dict[str, asyncio.Task[Any]] = {}
        self._cancelled_at: dict[str, float] = {}
        self._starts: dict[str, int] = {}
        self._fetches: dict[str, int] = {}
        self._starting = 0
        self._pruned_at = 0.0
        self._looked_at = 0.0
        self._turned_at = time.monotonic()
        self._begun = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._live())

    def __repr__(self) -> str:
        return f"JobManager({self._settings.limits.running_jobs} jobs at once)"

    async def poke(self) -> None:
        """There is something new in the job table."""
        self._poked.set()

    async def look(self) -> tuple[str, float, float]:
        """Which release and settings this manager works by, since when, and how long its loop has been silent."""
        await self._begun.wait()
        return self._settings.identity, self._since, time.monotonic() - self._turned_at

    async def leave(self) -> None:
        """Make room for a manager of another release. Jobs go on: their drivers do not depend on it."""
        await self._stop()
        await self._tracer.close()
        ray.kill(ray.get_runtime_context().current_actor)

    async def drain(self) -> None:
        """Begin nothing more, and have the drivers leave; returns when they have. Their jobs go on with a new server.

        This manager stays and does nothing, so that nobody makes another. One that stands by has nothing to drain.
        """
        left: Sequence[Job] = []
        if self._leads:
            await asyncio.to_thread(drain.begin, self._database)
            left = await asyncio.to_thread(self._store.running)
        await self._stop()
        for job in left:
            await self._drivers.leave(job)
        while left := [job for job in left if await self._drivers.exists(job)]:  # noqa: ASYNC110 - Ray tells nobody
            await asyncio.sleep(GATHER_S)
        await self._tracer.close()

    async def _stop(self) -> None:
        for task in (self._task, *self._busy.values()):
            task.cancel()
        try:
            await asyncio.to_thread(self._lease.give_back)
        except SQLAlchemyError:
            log.warning("the lease is not given back; it runs out")
        await self._client.close()

    async def discard(self, job_id: str) -> None:
        """Delete what the extractor keeps of an ended job, and stop fetching it."""
        if fetch := self._busy.get(f"fetch:{job_id}"):
            fetch.cancel()
        self._once(f"discard:{job_id}", self._discard(job_id))

    async def _live(self) -> None:
        while True:
            self._poked.clear()
            try:
                if await self._may_work():
                    await self._turn()
                self._turned_at = time.monotonic()
            except Exception:
                log.exception("a turn failed")
            self._begun.set()
            try:
                async with asyncio.timeout(TURN_S):
                    await self._poked.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                continue

    async def _may_work(self) -> bool:
        """Whether this manager has the lease. Renewing it also tells whether the database can be written."""
        self._back_s += self._clock.set_back_s()
        if self._leads and self._back_s:
            log.warning("the clock was set back", extra={"seconds": round(self._back_s)})
            await asyncio.to_thread(bring_back, self._database, self._back_s)
        self._back_s = 0.0
        if self._leads and time.monotonic() - self._renewed_at < BEAT_S:
            return True
        try:
            leads = await asyncio.to_thread(self._lease.hold)
        except SQLAlchemyError:
            self._beats.reset()  # drivers cannot write either
            if self._leads and time.monotonic() - self._renewed_at > LEASE_S:
                self._once("unblock", self._unblock())
            raise
        self._renewed_at = time.monotonic()
        if leads and not self._leads:
            log.info("this manager works")
            self._beats.reset()
            await asyncio.to_thread(drain.end, self._database)
            await asyncio.to_thread(self._store.reset_prefetch)
            await asyncio.to_thread(plan_anew, self._database)
        elif not leads and self._leads is not False:
            log.warning("another manager works on this database: this one stands by")
            self._job_metrics.rest()
        self._leads = leads
        return leads

    async def _turn(self) -> None:
        for job in await asyncio.to_thread(self._store.admit):
            log.info("admitted", extra=logs.about(job.job_id, waited_s=round(time.time() - job.queued_at, 3)))
        running = await asyncio.to_thread(self._store.running)
        for job in running:
            self._once(f"drive:{job.job_id}", self._look_after(job))
        ids = {job.job_id for job in running}
        for kept in (self._starts, self._cancelled_at):
            for job_id in kept.keys() - ids:
                del kept[job_id]
        self._beats.retain_only(ids)
        self._slots.retain_only(ids)
        for job in await asyncio.to_thread(self._store.take_due_heartbeats, since_s=self._settings.heartbeat_s):
            self._once(f"tell:{job.job_id}", self._tell(job))
        await self._deliver_due()
        await self._fetch_ahead()
        if time.monotonic() - self._looked_at > job_metrics.EVERY_S:
            self._looked_at = time.monotonic()
            self._once("job metrics", asyncio.to_thread(self._job_metrics.look))
        if time.monotonic() - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            self._once("prune", self._prune())
            self._once("strays", self._kill_orphans(running))

    def _once(self, key: str, work: Coroutine[Any, Any, object]) -> None:
        """Do `work` beside the loop unless the same is being done."""
        if key in self._busy:
            work.close()
            return
        task = self._busy[key] = asyncio.create_task(work)

        def ended(_: asyncio.Task[object]) -> None:
            del self._busy[key]
            if not task.cancelled() and (error := task.exception()):
                log.error("%s failed", key.partition(":")[0], exc_info=error)

        task.add_done_callback(ended)

    async def _look_after(self, job: Job) -> None:
        """See to it that a running job has a living driver, that a cancelled one stops, and that a late one ends."""
        if overdue := self._overdue(job):
            await self._end(job, overdue)
            return
        async with asyncio.timeout(DRIVER_ANSWER_S):
            if not await self._drivers.exists(job):
                if job.attempt >= self._settings.limits.attempts:
                    await self._end(job, InternalJobError())
                elif not self._has_to_wait(job):
                    await self._start_driver(job)
            elif self._beats.unchanged_s(job.job_id, (job.run, job.attempt, job.beats)) > LEASE_S:
                log.warning("a driver stands still", extra=logs.about(job.job_id, run=job.run, attempt=job.attempt))
                self._beats.forget(job.job_id)
                await self._drivers.kill(job)
                self._poked.set()
            elif job.cancel_requested:
                await self._drivers.cancel(job)

    def _has_to_wait(self, job: Job) -> bool:
        """Whether a job's video is just being fetched by a URL that is too old for another replica to fetch it, too."""
        fetched = f"fetch:{job.job_id}" in self._busy and not job.cancel_requested
        return fetched and job.video_expires_at < time.time() + URL_MARGIN_S

    async def _unblock(self) -> None:
        """Kill drivers that do not run: on SQLite, one that is stopped within a write keeps all others from writing."""
        for job in await asyncio.to_thread(self._store.running):
            if await self._drivers.exists(job) and not await self._drivers.answers(job):
                log.warning("a driver hangs while nobody can write", extra=logs.about(job.job_id))
                await self._drivers.kill(job)

    def _overdue(self, job: Job) -> JobError | None:
        """Why the manager has to end a job itself, if it has to: its driver has had its time to do so."""
        limits = self._settings.limits
        longest_s = limits.processing_s + DEADLINE_GRACE_S
        if job.cancel_requested:
            since = self._cancelled_at.setdefault(job.job_id, time.monotonic())
            return CancelledJobError() if time.monotonic() - since > CANCEL_GRACE_S else None
        idle_s = self._slots.unchanged_s(job.job_id, job.run) - job.spent_s
        if max(job.spent_s, idle_s) > longest_s:
            return ProcessingTimeoutError(limit_min=limits.processing_s / 60)
        if job.attempt > limits.attempts or self._starts.get(job.job_id, 0) > STARTS_PER_ATTEMPT * limits.attempts:
            return InternalJobError()
        return None

    async def _start_driver(self, job: Job) -> None:
        """Start a job's driver unless enough others start; their ends poke the loop, and then it is this one's turn."""
        if self._starting >= DRIVER_STARTS:
            return
        self._starting += 1
        try:
            now = await asyncio.to_thread(self._store.get, job.job_id)
            if now is not None and (now.run, now.state) == (job.run, JobState.RUNNING):
                log.info("driver starts", extra=logs.about(now.job_id, run=now.run, attempts_before=now.attempt))
                self._stop_telling(now.job_id)
                self._starts[now.job_id] = self._starts.get(now.job_id, 0) + 1
                self._beats.forget(now.job_id)
                await self._drivers.start(now)
        finally:
            self._starting -= 1
            self._poked.set()

    async def _end(self, job: Job, error: JobError) -> None:
        """End a job whose driver does not."""
        if not await self._drivers.kill(job):
            log.info("a job without a driver is ended", extra=logs.about(job.job_id))
        outcome = Outcome(error_code=error.code, error_message=error.sentence(self._settings.locale))
        attempt = Attempt(job_id=job.job_id, run=job.run, number=job.attempt)
        if await asyncio.to_thread(self._store.finish, attempt, outcome):
            log_end(job, outcome, seconds=job.spent_s)
            await self._tracer.ended(job)
            await self._discard(job.job_id)

    async def _tell(self, job: Job) -> None:
        """The heartbeat of a job that waits, or whose driver is on its way."""
        now = Progress(percent=job.progress, stage=job.stage)
        body = payloads.progress(job.job_id, now, locale=self._settings.locale)
        await self._sender.tell(
            job.job_id, str(job.callback_url), body, message_id=payloads.new_message_id(), sequence=job.sequence
        )

    def _stop_telling(self, job_id: str) -> None:
        """What comes next must not be overtaken."""
        if telling := self._busy.get(f"tell:{job_id}"):
            telling.cancel()

    async def _deliver_due(self) -> None:
        for callback_id, job_id in await asyncio.to_thread(self._outbox.due, DELIVERIES):
            self._stop_telling(job_id)
            self._once(f"deliver:{callback_id}", self._sender.deliver(callback_id))

    async def _fetch_ahead(self) -> None:
        limits = self._settings.limits
        free = limits.prefetches - sum(key.startswith("fetch:") for key in self._busy)
        counts = await asyncio.to_thread(self._store.counts)
        if free <= 0 or counts.running < limits.running_jobs or self._free_bytes() < limits.prefetch_bytes:
            return
        if not counts.queued:
            self._fetches.clear()
        for job in await asyncio.to_thread(self._store.to_prefetch, free):
            await asyncio.to_thread(self._store.set_prefetch, job, "running")
            self._once(f"fetch:{job.job_id}", self._fetch(job))

    def _free_bytes(self) -> int:
        """Room for fetched audio, and a video meanwhile; where scratch is remote storage, it looks after its own."""
        extraction = self._settings.extraction
        places = (Path(extraction.scratch_url.removeprefix("file://")), extraction.temp_dir)
        return min((shutil.disk_usage(place).free for place in places if place and place.exists()), default=sys.maxsize)

    async def _fetch(self, job: Job) -> None:
        """Extract a waiting job's audio before its URL expires; what is wrong with the video is told in its turn."""
        state = "failed"
        tries = self._fetches[job.job_id] = self._fetches.get(job.job_id, 0) + 1
        fetching: Any = None
        try:
            with self._tracer.of(job).span("fetch ahead", number=tries):
                fetching = self._stages.extractor.prepare.remote(job.job_id, job.run, job.video_url, None)
                await fetching
            state = "done"
        except asyncio.CancelledError:
            fetching.cancel()
            state = "none"  # this server stops: the next fetches it
            raise
        except Exception as error:  # noqa: BLE001 - the driver tries again and reports
            log.info("fetching ahead failed", extra=logs.about(job.job_id, error=type(error).__name__))
            blameless = (*TRANSIENT, OutOfResourcesError)
            if isinstance(getattr(error, "cause", error), blameless) and tries < FETCH_TRIES:
                await asyncio.sleep(FETCH_AGAIN_S)
                state = "none"  # the URL may not live until its turn
        finally:
            await asyncio.to_thread(self._store.set_prefetch, job, state)
            self._poked.set()  # the next one need not wait for a turn

    async def _prune(self) -> None:
        """Delete the rows of jobs that are older than the retention, and audio that nobody needs any more."""
        kept_since = time.time() - self._settings.retention_days * 86_400
        while await asyncio.to_thread(self._store.prune, kept_since):  # a part at a time
            pass
        for job_id in await self._stages.extractor.kept_jobs.remote():
            job_now = await asyncio.to_thread(self._store.get, job_id)
            if job_now is None or job_now.state.ended:
                await self._discard(job_id)

    async def _kill_orphans(self, running: Sequence[Job]) -> None:
        """Kill drivers whose job has ended long ago, or is gone: what was stray at the last look, too."""
        strays = await self._drivers.strays({(job.job_id, job.run) for job in running})
        for name in strays & self._strays:
            log.warning("a driver without a job is killed", extra={"driver": name})
            await self._drivers.end(name)
        self._strays = strays

    async def _discard(self, job_id: str) -> None:
        await self._stages.extractor.discard.remote(job_id)
