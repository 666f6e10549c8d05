"""Runs one job, inside the actor that `actor.py` makes.

It starts itself from the job's row, so it does not matter who created it or whether that one still lives, nor
whether Ray restarted it: an attempt is counted before its work starts, and only the newest attempt may write.
While it works it raises the row's beats: its lease, which the manager watches.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from deployments import logs
from deployments.errors import (
    CancelledJobError,
    InternalJobError,
    JobError,
    OutOfResourcesError,
    ProcessingTimeoutError,
)
from deployments.net.client import CallbackClient
from serve_app.callbacks.payloads import dump
from serve_app.callbacks.sender import ProgressTeller, Sender
from serve_app.jobs.job import Attempt, Job, Outcome
from serve_app.jobs.progress import Progress, ProgressMeter
from serve_app.observability.canonical_log import log_end
from serve_app.observability.tracing import Tracer
from serve_app.orchestration.isolation import Quarantine
from serve_app.pipeline.checkpoint_writer import CheckpointWriter
from serve_app.pipeline.pipeline import Pipeline, Stages
from serve_app.pipeline.resume import StageTimer
from serve_app.pipeline.stage_client import TRANSIENT
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.leases import BEAT_S
from serve_app.storage.opening import open_database, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.actor import ActorHandle

    from serve_app.observability.tracing import Trace
    from serve_app.settings import Settings
    from serve_app.storage.job_store import Ending

AWAY_WAITS_S = (1.0, 2.0, 5.0)
"""Between tries to reach a database that is away: for as long as it takes, for what is done must not be lost."""
DISCARD_S = 10.0

Answer = TypeVar("Answer")
log = logs.get_logger("driver")


class JobRunner:
    """Runs one job from its row to its stored end, and makes the first try to tell it."""

    def __init__(
        self,
        job_id: str,
        run: int,
        settings: Settings,
        stages: Stages,
        manager: ActorHandle[Any],
        *,
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`show` is told in a few words what is done, about once a second."""
        logs.configure()
        self._show = show
        self._job_id = job_id
        self._run = run
        self._settings = settings
        self._stages = stages
        self._manager = manager
        database = open_database(settings)
        self._store, self._outbox = open_store(settings, database)
        self._tracer = Tracer(settings, self._store, process="driver")
        self._checkpoints = Checkpoints(database)
        self._quarantine = Quarantine(database)
        self._pipeline: Pipeline | None = None
        self._cancelled = False
        self._leaving = False
        self._work: asyncio.Task[Outcome] | None = None
        self._task = asyncio.get_running_loop().create_task(self._live())

    def stage_progress(self, step: str, fraction: float) -> None:
        """The extractor's report on its way."""
        if self._pipeline is not None:
            self._pipeline.extraction_progress(step, fraction)

    def cancel(self) -> None:
        """Stop the work; the job ends as cancelled."""
        self._cancelled = True
        if self._work is not None:
            self._work.cancel()

    def leave(self) -> None:
        """Stop the work and give the attempt back: the job goes on where it stands, with another driver, later."""
        self._leaving = True
        if self._work is not None:
            self._work.cancel()

    async def _live(self) -> None:
        try:
            job = await self._stored(self._store.begin_attempt, self._job_id, self._run)
            if job is not None:
                await self._attempt(job)
        except Exception:
            log.exception("driver failed", extra=logs.about(self._job_id))
        finally:
            self._manager.poke.remote()
            await self._tracer.close()
            # Gone at once, name and all, and not restarted. `exit_actor` would wait for Serve's long polls: 45 s.
            ray.kill(ray.get_runtime_context().current_actor)

    async def _attempt(self, job: Job) -> None:
        attempt = Attempt(job_id=job.job_id, run=job.run, number=job.attempt)
        started = time.monotonic()
        trace = await self._tracer.of_attempt(job)

        async def trace_of(_: str) -> Trace:
            return trace

        async with CallbackClient(self._settings.callback_policy) as client:
            secrets = [secret.get_secret_value() for secret in self._settings.webhook_secrets]
            sender = Sender(client, self._outbox, secrets=secrets, trace_of=trace_of)
            meter = ProgressMeter(job.progress)
            spent, clock = _Spent(), StageTimer(trace=trace)

            async def report(now: Progress) -> int | None:
                self._show(f"{job.job_id}: {now.stage} {now.percent} %")
                return await asyncio.to_thread(self._store.tell, attempt, now, spent_s=spent.take(), marks=clock.take())

            teller = ProgressTeller(
                sender,
                job_id=job.job_id,
                url=job.callback_url,
                locale=self._settings.locale,
                now=lambda: meter.now,
                report=report,
                heartbeat_s=self._settings.heartbeat_s,
            )
            self._pipeline = Pipeline(
                job,
                self._settings,
                self._stages,
                meter=meter,
                changed=teller.changed,
                kept=CheckpointWriter(self._checkpoints, attempt),
                alone=self._quarantine.alone,
                clock=clock,
                trace=trace,
            )
            self._work = asyncio.create_task(self._outcome(job, self._pipeline))
            if self._cancelled or self._leaving or job.cancel_requested:
                self._work.cancel()
            lease = asyncio.create_task(self._hold(attempt, spent, self._work))
            outcome = await self._ended(self._work)
            await teller.close()
            if outcome is None:
                lease.cancel()
                await self._stored(partial(self._store.give_back, spent_s=spent.take(), marks=clock.take()), attempt)
                log.info("left", extra=logs.about(job.job_id, run=job.run, attempt=job.attempt))
                return
            ending = await self._stored(self._store.finish, attempt, outcome, clock.take())
            lease.cancel()
            self._manager.poke.remote()
            if ending is None:
                return
            log_end(job, outcome, seconds=time.monotonic() - started)
            await asyncio.gather(self._discard(), self._deliver(sender, ending), self._tracer.ended(job))

    async def _hold(self, attempt: Attempt, spent: _Spent, work: asyncio.Task[Outcome]) -> None:
        """Keep the lease; an attempt that no longer counts stops its work. Telling progress is a beat, too."""
        while True:
            await asyncio.sleep(max(0.0, BEAT_S - spent.so_far_s))
            if spent.so_far_s < BEAT_S:
                continue
            try:
                held = await asyncio.to_thread(self._store.beat, attempt, spent_s=spent.take())
            except SQLAlchemyError:
                log.exception("beat not stored", extra=logs.about(self._job_id))
                continue
            if not held:
                log.warning("this attempt no longer counts", extra=logs.about(self._job_id, attempt=attempt.number))
                work.cancel()
                return

    async def _stored(self, change: Callable[..., Answer], *args: Any) -> Answer:
        """Change the row; a database that is away for a while does not throw the work away."""
        for wait_s in chain(AWAY_WAITS_S, repeat(AWAY_WAITS_S[-1])):
            try:
                return await asyncio.to_thread(change, *args)
            except (DataError, IntegrityError):  # no wait helps
                raise
            except SQLAlchemyError:
                log.exception("not stored yet", extra=logs.about(self._job_id))
                await asyncio.sleep(wait_s)
        raise AssertionError

    async def _deliver(self, sender: Sender, ending: Ending) -> None:
        if ending.callback_id is not None:
            await sender.deliver(ending.callback_id)

    async def _discard(self) -> None:
        """The audio of this run may go."""
        try:
            async with asyncio.timeout(DISCARD_S):
                await self._stages.extractor.discard.remote(self._job_id, self._run)
        except Exception as error:  # noqa: BLE001 - the manager sweeps up what is left
            log.warning("audio not discarded", extra=logs.about(self._job_id, error=type(error).__name__))

    async def _ended(self, work: asyncio.Task[Outcome]) -> Outcome | None:
        """How the run ended; None where only this attempt did."""
        try:
            return await work
        except asyncio.CancelledError:
            if self._leaving and not self._cancelled:
                return None
            return self._failure(CancelledJobError())

    async def _outcome(self, job: Job, pipeline: Pipeline) -> Outcome:
        limits = self._settings.limits
        if job.attempt > limits.attempts:
            return self._failure(InternalJobError())
        started = time.monotonic()
        try:
            async with asyncio.timeout(limits.processing_s - job.spent_s):
                reporter = ray.get_runtime_context().current_actor
                result = await pipeline.run(reporter, spent_s=job.spent_s)
            return Outcome(
                result=dump(result),
                duration_s=result["duration"],
                processing_s=job.spent_s + time.monotonic() - started,
                warnings=len(result["metadata"]["warnings"]),
            )
        except TimeoutError:
            return self._failure(ProcessingTimeoutError(limit_min=limits.processing_s / 60))
        except JobError as error:
            log.warning("job failed", exc_info=error, extra=logs.about(job.job_id, code=error.code))
            return self._failure(error)
        except (MemoryError, *TRANSIENT):
            log.exception("no resources", extra=logs.about(job.job_id))
            return self._failure(OutOfResourcesError())
        except Exception:
            log.exception("internal error", extra=logs.about(job.job_id))
            return self._failure(InternalJobError())

    def _failure(self, error: JobError) -> Outcome:
        return Outcome(error_code=error.code, error_message=error.sentence(self._settings.locale))


class _Spent:
    """Seconds since the last time somebody asked."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    @property
    def so_far_s(self) -> float:
        """How many they are."""
        return time.monotonic() - self._since

    def take(self) -> float:
        """How many they are, and begin anew."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return seconds
