"""Runs one job, inside the actor that `job_actor.py` makes.

It starts itself from the job's row, so it does not matter who created it, whether that one still lives, or whether Ray
restarted it. What an attempt writes to the row is in `attempt.py`, the work itself in `serve_app/pipeline`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

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
from serve_app.callbacks.progress_reporter import ProgressReporter
from serve_app.callbacks.progress_tally import ProgressTally
from serve_app.callbacks.sender import Sender
from serve_app.jobs.job import Outcome
from serve_app.jobs.progress import ProgressMeter
from serve_app.observability.canonical_log import log_end
from serve_app.observability.tracing import Tracer
from serve_app.orchestration.attempt import Isolation, RunningAttempt, until_stored
from serve_app.orchestration.opening import open_stores
from serve_app.pipeline.checkpoint_writer import CheckpointWriter
from serve_app.pipeline.pipeline import Pipeline
from serve_app.pipeline.stage_calls import TRANSIENT
from serve_app.pipeline.steps import StageTimer
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import open_database

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from deployments.extraction.protocol import Part
    from serve_app.callbacks.progress_tally import Tries
    from serve_app.jobs.job import Job
    from serve_app.jobs.progress import Progress
    from serve_app.jobs.stages import Stage
    from serve_app.observability.tracing import Trace
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings
    from serve_app.storage.attempt_store import Ending

DISCARD_S, FLUSH_S = 10.0, 5.0

log = logs.get_logger("driver")


class JobRunner:
    """Run one job from its row to its stored end, and make the first try of its terminal callback."""

    def __init__(
        self,
        job_id: str,
        run: int,
        token: str,
        *,
        settings: Settings,
        stages: StageHandles,
        manager: ActorHandle[Any],
    ) -> None:
        logs.configure()
        self._job_id = job_id
        self._run = run
        self._token = token
        self._settings = settings
        self._stages = stages
        self._manager = manager
        database = open_database(settings)
        stores = open_stores(settings, database)
        self._attempts, self._outbox = stores.attempts, stores.outbox
        self._tracer = Tracer(settings, stores.jobs, process="driver")
        self._checkpoints = Checkpoints(database)
        self._isolation = Isolation(database)
        self._progress_tally = ProgressTally(self._report_tries)
        self._pipeline: Pipeline | None = None
        self._work: asyncio.Task[Outcome] | None = None
        self._cancelled = False
        self._giving_back = False
        self._task = asyncio.get_running_loop().create_task(self._live())

    def report_progress(self, part: Part, fraction: float) -> None:
        """Take the extractor's report that `fraction` (0-1) of a part is done."""
        if self._pipeline is not None:
            self._pipeline.report_progress(part, fraction)

    def cancel(self) -> None:
        """Stop the work; the job ends as cancelled."""
        self._cancelled = True
        self._stop_work()

    def give_back(self) -> None:
        """Stop the work and give the attempt back: the job goes on where it is, with another actor, later."""
        self._giving_back = True
        self._stop_work()

    def _stop_work(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def _live(self) -> None:
        try:
            begin = partial(self._attempts.begin_attempt, self._job_id, self._run, self._token, time.time())
            job, _ = await asyncio.gather(until_stored(self._job_id, begin), asyncio.to_thread(self._start_router))
            if job is not None:
                await self._attempt(job)
        except Exception:
            log.exception("job runner failed", extra=logs.about(self._job_id))
        finally:
            self._manager.wake.remote()
            await self._tracer.close()
            # Gone at once, name and all, and not restarted. `exit_actor` would wait for Serve's long polls: 45 s.
            ray.kill(ray.get_runtime_context().current_actor)

    def _start_router(self) -> None:
        """Have Serve find the extractor's replicas, as a handle's first use does; its call raises what fails here."""
        with suppress(Exception):
            _ = self._stages.extractor.prepare

    async def _attempt(self, job: Job) -> None:
        """Work on a job of which an attempt has just been counted, and bring that attempt to its end."""
        started = time.monotonic()
        trace = await self._tracer.of_attempt(job)
        timer = StageTimer(trace=trace)
        attempt = RunningAttempt(job, self._attempts, timer)
        async with CallbackClient(self._settings.callbacks) as client:
            sender = self._sender(client, trace)
            meter = ProgressMeter(job.progress)
            progress_reporter = self._progress_reporter(job, sender, meter, attempt)

            def report_progress(stage: Stage, fraction: float) -> None:
                meter.report_progress(stage, fraction)
                progress_reporter.changed()

            checkpoints = CheckpointWriter(self._checkpoints, attempt.id)
            self._pipeline = Pipeline(
                job,
                self._settings,
                self._stages,
                report_progress=report_progress,
                reporter=ray.get_runtime_context().current_actor,
                checkpoints=checkpoints,
                isolation=self._isolation.hold,
                timer=timer,
                trace=trace,
            )
            self._work = asyncio.create_task(self._outcome(job, self._pipeline))
            if self._cancelled or self._giving_back or job.cancel_requested:
                self._work.cancel()
            lease = asyncio.create_task(attempt.hold_lease(self._work))
            outcome = await self._outcome_or_none(self._work)
            await progress_reporter.close()
            self._progress_tally.flush()
            if outcome is None:
                await checkpoints.flush()  # they would not count after it
                lease.cancel()
                await attempt.give_back()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await checkpoints.flush()  # of no use to this run, but to one that follows
            ending = await attempt.finish(outcome)
            lease.cancel()
            self._manager.wake.remote()
            if ending is not None:
                log_end(job, outcome, seconds=time.monotonic() - started)
                await asyncio.gather(self._discard(), _deliver(sender, ending), self._tracer.ended(job))

    def _sender(self, client: CallbackClient, trace: Trace) -> Sender:
        async def trace_of(_job_id: str) -> Trace:
            return trace

        secrets = [secret.get_secret_value() for secret in self._settings.webhook_secrets]
        count = self._progress_tally.add
        return Sender(client, self._outbox, secrets=secrets, trace_of=trace_of, count_progress=count)

    def _report_tries(self, tries: Tries) -> None:
        """Have the manager count progress callbacks; one of the release before counts none."""
        with suppress(AttributeError):
            self._manager.count_progress.remote(tries)

    def _progress_reporter(
        self, job: Job, sender: Sender, meter: ProgressMeter, attempt: RunningAttempt
    ) -> ProgressReporter:
        async def report(now: Progress) -> int | None:
            return await attempt.save_progress(now)

        return ProgressReporter(
            sender,
            job_id=job.job_id,
            url=job.callback_url,
            locale=self._settings.locale,
            now=lambda: meter.now,
            report=report,
            heartbeat_s=self._settings.heartbeat_s,
        )

    async def _outcome_or_none(self, work: asyncio.Task[Outcome]) -> Outcome | None:
        """Return how the run ends; None where only this attempt does."""
        try:
            return await work
        except asyncio.CancelledError:
            if self._giving_back and not self._cancelled:
                return None
            return self._failure(CancelledJobError())

    async def _outcome(self, job: Job, pipeline: Pipeline) -> Outcome:
        """Run the pipeline within the job's deadline; return its result or its error."""
        limits = self._settings.limits
        if job.attempt > limits.attempts:
            return self._failure(InternalJobError())
        started = time.monotonic()
        try:
            async with asyncio.timeout(limits.processing_s - job.spent_s):
                result = await pipeline.run(spent_s=job.spent_s)
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

    async def _discard(self) -> None:
        """Delete the audio of this run; what is left after a failure is deleted by the manager."""
        try:
            async with asyncio.timeout(DISCARD_S):
                await self._stages.extractor.discard.remote(self._job_id, self._token or self._run)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("audio not discarded", extra=logs.about(self._job_id, error=type(error).__name__))


async def _deliver(sender: Sender, ending: Ending) -> None:
    if ending.callback_id is not None:
        await sender.deliver(ending.callback_id)
