"""The operations behind the routes: submit, rerun, look up, cancel and delete jobs, and send their callbacks again.

Knows the store and the outbox, and nothing of Ray: it reaches the rest of the server through `Signals`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from deployments.errors import CancelledJobError
from serve_app import __version__
from serve_app.api import errors, schemas
from serve_app.api.submissions import new_job, rerun_of
from serve_app.callbacks.payloads import dump, end_body, status_url
from serve_app.exports.formats import export
from serve_app.jobs.job import CallbackState, Counts, Job, NewJob, Outcome, Rerun
from serve_app.jobs.progress import SENTENCES
from serve_app.jobs.states import JobState
from serve_app.observability.canonical_log import log_end
from serve_app.observability.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve_app.exports.options import ExportOptions
    from serve_app.settings import Settings
    from serve_app.storage.job_store import JobStore, JobSummary, Submission
    from serve_app.storage.outbox import Outbox

UNKNOWN_ESTIMATE_S = 300
HEALTH_CACHE_S = 0.5
HEALTH_S = 0.8
DATABASE_S = 4.0
RETRY_AFTER_S = 5
DRAIN_RETRY_S = 60
"""Stopping takes up to half a minute, and the next start as long."""
DRAINING = "The server is about to stop and takes no new jobs; try again later"
Result = TypeVar("Result")
log = logs.get_logger("api")

STARTED_MESSAGE = {"ko": "비디오 처리가 시작되었습니다", "en": "Video processing has started"}


class Signals(Protocol):
    """The rest of the server as the HTTP edge sees it. No method may block or raise."""

    def wake(self) -> None:
        """Report that the job table has changed."""

    def discard(self, job_id: str) -> None:
        """Have a job's files deleted."""

    def is_managed(self) -> bool:
        """Return whether the jobs' manager is of this release: one of an earlier release knows no reruns."""

    def failing(self) -> Sequence[str]:
        """Return the names of the parts that do not work."""


class JobService:
    """The job operations of the contract."""

    def __init__(self, settings: Settings, store: JobStore, outbox: Outbox, signals: Signals) -> None:
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._signals = signals
        self._tracer = Tracer(settings, store, process="api")
        self._counted_at = -math.inf
        self._counts: Counts | None = None
        self._draining = False
        self._writer = ThreadPoolExecutor(1, "writer")

    async def submit(
        self, request: schemas.ProcessVideoRequest, *, traceparent: str | None = None
    ) -> dict[str, object]:
        """Store the job durably and return the response's body. Raises the `ApiError`s of the contract."""
        began_s = time.time()
        new = new_job(request, self._settings, traceparent=self._tracer.accepted(traceparent))
        submission, estimate_s = await self._write(self._estimated, self._store.submit_job, new)
        if submission.conflict:
            raise errors.JobConflictError(job_id=new.job_id)
        return self._taken(new.job_id, submission, estimate_s, began_s)

    async def rerun(
        self, job_id: str, request: schemas.RerunRequest, *, traceparent: str | None = None
    ) -> dict[str, object]:
        """Begin a new run of an ended job with changed options; return the body of a POST's response.

        Raises `JobConflictError` for a job that has not ended and for another video, and `InvalidRequestError` also
        where the run would have to fetch the video and the request brings no URL.
        """
        began_s = time.time()
        job = await self._known(job_id)
        if not job.state.ended:
            raise errors.JobConflictError("This job has not ended: it can be run again when it has", job_id=job_id)
        if not self._signals.is_managed():
            raise errors.UnavailableError(job_id=job_id, retry_after_s=RETRY_AFTER_S)
        accepted = self._tracer.accepted(traceparent)
        rerun = await self._read(rerun_of, job, request, self._settings, self._store.checkpoints, traceparent=accepted)
        submission, estimate_s = await self._write(self._estimated, self._store.rerun_job, rerun)
        if submission.conflict:
            raise errors.JobConflictError("This job has been run again or deleted meanwhile", job_id=job_id)
        return self._taken(job_id, submission, estimate_s, began_s)

    def _taken(
        self, job_id: str, submission: Submission, estimate_s: float | None, began_s: float
    ) -> dict[str, object]:
        """Return the response's body for what the store has taken. Raises the error for what it could not take."""
        job = submission.job
        if submission.draining:
            raise errors.UnavailableError(DRAINING, job_id=job_id, retry_after_s=DRAIN_RETRY_S)
        if job is None:
            retry_after_s = math.ceil(estimate_s or UNKNOWN_ESTIMATE_S / self._settings.limits.running_jobs)
            raise errors.QueueFullError(job_id=job_id, retry_after_s=max(1, retry_after_s))
        if submission.started:
            self._signals.wake()
            log.info("accepted", extra=logs.about(job.job_id, run=job.run, options=job.options.shown))
            self._tracer.posted(job, began_s)
        return self._accepted(job, started=submission.started, estimate_s=estimate_s)

    def _estimated(self, store: Callable[[Any], Submission], asked: NewJob | Rerun) -> tuple[Submission, float | None]:
        """Store what is asked; return the outcome, and the seconds until its end (queue full: until a place)."""
        submission = store(asked)
        return submission, self._store.estimate_s(submission.job)

    def _accepted(self, job: Job, *, started: bool, estimate_s: float | None) -> dict[str, object]:
        estimate = 0 if job.state.ended else max(1, math.ceil(estimate_s or UNKNOWN_ESTIMATE_S))
        if self._settings.contract_version == "1.0":
            status = "accepted" if started else job.state.wire
            return {"job_id": job.job_id, "status": status, "message": "Processing started", "estimated_time": estimate}
        return {
            "job_id": job.job_id,
            "status": "processing" if started else job.state.wire,
            "message": STARTED_MESSAGE[self._settings.locale],
            "status_url": status_url(job.job_id),
            "estimated_time": estimate,
        }

    async def status(self, job_id: str) -> bytes:
        """Return the status as JSON; the result is byte for byte that of the callback, of the newest completed run."""
        job = await self._known(job_id)
        callback = await self._read(self._outbox.status, job_id)
        has_result = job.state is JobState.COMPLETED or job.run > 1  # an earlier run may have left one
        result = await self._read(self._store.fetch_result, job_id) if has_result else None
        if result is None and job.state is JobState.COMPLETED:  # deleted meanwhile, and perhaps posted again
            raise errors.JobNotFoundError(job_id=job_id)
        view = (await self._view(job)).model_dump(exclude_none=True) | (
            {"speakers": job.speakers} if job.speakers else {}
        )
        view["callback"] = asdict(callback)
        content = dump(view)
        return content if result is None else content[:-1] + b',"result":' + result + b"}"

    async def page(self, *, state: str | None, callback: str | None, limit: int, after: str | None) -> schemas.JobList:
        """Return a page of jobs, newest first."""
        wanted = JobState.from_wire(state) if state else None
        if state and wanted is None:
            raise errors.InvalidRequestError("state must be accepted, processing, completed or failed")
        owed = CallbackState(callback) if callback else None
        try:
            page = await self._read(
                self._store.job_list.page, state=wanted, callback=owed, limit=limit + 1, after=after
            )
        except LookupError:
            raise errors.JobNotFoundError(job_id=after) from None
        lines = [self._line(line) for line in page[:limit]]
        return schemas.JobList(jobs=lines, next_after=lines[-1].job_id if len(page) > limit else None)

    async def changes(self, since: int | None) -> tuple[int, list[schemas.JobLine]]:
        """Return the newest event, and the jobs that may have changed since `since`. Raises `UnavailableError`."""
        (newest, lines), draining = await self._read(
            lambda: (self._store.job_list.changes(since), self._store.is_draining())
        )
        if draining:
            raise errors.UnavailableError(DRAINING, retry_after_s=DRAIN_RETRY_S)
        return newest, [self._line(line) for line in lines]

    async def _view(self, job: Job) -> schemas.JobView:
        queued = job.state is JobState.QUEUED
        position = await self._read(self._store.queue_position, job) if queued else None
        return schemas.JobView(**self._fields(job, position))

    def _line(self, line: JobSummary) -> schemas.JobLine:
        return schemas.JobLine(
            **self._fields(line.job, line.position),
            stage=line.job.stage,
            run=line.job.run,
            attempt=line.job.attempt,
            actor=_actor(line.job),
            duration=line.duration_s,
            processing_time=line.processing_s and round(line.processing_s, 3),
            warnings=line.warnings,
            callback=line.callback.value,
        )

    def _fields(self, job: Job, position: int | None) -> dict[str, Any]:
        return {
            "job_id": job.job_id,
            "status": job.state.wire,
            "progress": job.progress,
            "message": job.error_message or SENTENCES[job.stage][self._settings.locale],
            "queue_position": position,
            "created_at": iso(job.created_at),
            "started_at": job.started_at and iso(job.started_at),
            "finished_at": job.finished_at and iso(job.finished_at),
            "error_code": job.error_code,
            "error_message": job.error_message,
            "custom_metadata": None if job.custom_metadata is None else json.loads(job.custom_metadata),
        }

    async def cancel_or_delete(self, job_id: str) -> schemas.JobView | None:
        """Cancel a job that has not ended and return its state; delete one that has ended and return None."""
        if not (await self._known(job_id)).state.ended:
            try:
                return await self.cancel(job_id)
            except errors.JobConflictError:  # it has ended meanwhile: it is not deleted, as nobody knew of its end
                return await self._view(await self._known(job_id))
        if not await self._write(self._store.delete_job, job_id):
            raise errors.JobConflictError("A new run of this job has just begun", job_id=job_id)
        self._signals.discard(job_id)
        log.info("deleted", extra=logs.about(job_id))
        return None

    async def cancel(self, job_id: str) -> schemas.JobView:
        """Cancel a job and return its state. Raises `JobConflictError` for one that has ended."""
        cancelled = CancelledJobError()
        outcome = Outcome(error_code=cancelled.code, error_message=cancelled.sentence(self._settings.locale))
        before = await self._known(job_id)
        job = None if before.state.ended else await self._write(self._store.cancel_job, job_id, outcome)
        if job is None and not before.state.ended:
            raise errors.JobNotFoundError(job_id=job_id)
        if job is None or (job.state.ended and before.state is JobState.RUNNING):
            raise errors.JobConflictError("This job has ended", job_id=job_id)
        if job.state.ended and job.error_code == cancelled.code:
            log_end(job, outcome)
            await self._tracer.ended(job)
            self._signals.discard(job_id)
        self._signals.wake()
        log.info("cancel requested", extra=logs.about(job_id, state=job.state))
        return await self._view(job)

    async def redeliver(self, job_id: str) -> schemas.JobView:
        """Send the terminal callback again. Raises `JobConflictError` for a job that has not ended or has no URL."""
        job = await self._known(job_id)
        if not job.state.ended:
            raise errors.JobConflictError("This job has not ended", job_id=job_id)
        limit, named = self._settings.limits.callback_bytes, self._settings.contract_version != "1.0"
        body = partial(end_body, locale=self._settings.locale, max_bytes=limit)
        if not await self._write(partial(self._outbox.redeliver, end_body=body, named=named), job_id):
            raise errors.JobConflictError("This job has no callback URL", job_id=job_id)
        self._signals.wake()
        return await self._view(job)

    async def name_speakers(self, job_id: str, names: dict[str, str]) -> schemas.NamedJobView:
        """Replace the names of the speakers. Raises `JobConflictError` for a job without a result."""
        job = await self._known(job_id)
        known = await self._in_time(None, speakers_of, await self._result(job_id))
        if wrong := [speaker for speaker in names if speaker not in known]:
            has = f"it has {', '.join(known)}" if known else "it has no speakers"
            raise errors.InvalidRequestError(f"The result has no speaker {wrong[0][:40]}: {has}", job_id=job_id)
        named = await self._write(self._store.name_speakers, job, names)
        if named is None:
            raise errors.JobConflictError("A new run of this job has just begun", job_id=job_id)
        log.info("speakers named", extra=logs.about(job_id))
        return schemas.NamedJobView(**self._fields(named, None), speakers=named.speakers)

    async def timeline(self, job_id: str) -> schemas.Timeline:
        """Return the events of a job."""
        job = await self._known(job_id)
        events = [
            schemas.EventView(
                at=iso(event.at), event=event.kind, run=event.run, attempt=event.attempt, detail=event.detail
            )
            for event in await self._read(self._store.fetch_timeline, job_id)
        ]
        return schemas.Timeline(job_id=job_id, actor=_actor(job), events=events)

    async def export(self, job_id: str, options: ExportOptions) -> bytes:
        """Return the job's result as a file. Raises `JobConflictError` for a job without a result."""
        job = await self._known(job_id)
        result = await self._result(job_id)
        return await self._in_time(None, export, result, options, job_id=job_id, names=job.speakers)

    async def _result(self, job_id: str) -> bytes:
        """Return the job's result. Raises `JobConflictError` where there is none."""
        result = await self._read(self._store.fetch_result, job_id)
        if result is None:
            raise errors.JobConflictError("This job has no result: it has not been completed", job_id=job_id)
        return result

    async def _read(self, query: Callable[..., Result], *args: object, **options: object) -> Result:
        """Read from the database. Raises `UnavailableError` in time for the response: a request has five seconds."""
        return await self._in_time(None, query, *args, **options)

    async def _write(self, change: Callable[..., Result], *args: object) -> Result:
        """Write to the database: one write at a time, in a thread of its own, so that reads need not wait."""
        return await self._in_time(self._writer, change, *args)

    async def _in_time(
        self, thread: ThreadPoolExecutor | None, work: Callable[..., Result], *args: object, **options: object
    ) -> Result:
        try:
            async with asyncio.timeout(DATABASE_S):
                return await asyncio.get_running_loop().run_in_executor(thread, partial(work, *args, **options))
        except TimeoutError as late:
            raise errors.UnavailableError(retry_after_s=RETRY_AFTER_S) from late

    async def _known(self, job_id: str) -> Job:
        job = await self._read(self._store.fetch_job, job_id)
        if job is None:
            raise errors.JobNotFoundError(job_id=job_id)
        return job

    async def health(self, failing: Sequence[str] = ()) -> schemas.HealthResponse:
        """Return the state of the server within a second; never raises. The counts are at most half a second old.

        Args:
            failing: Parts that the caller has found broken.
        """
        limits = self._settings.limits
        await self._count()
        counts = self._counts
        failing = [*failing, *self._signals.failing()]
        if counts is None:
            failing.append("database")
        numbers = counts and schemas.JobNumbers(
            running=counts.running, queued=counts.queued, limit=limits.running_jobs, queue_limit=limits.queued_jobs
        )
        full = counts is not None and counts.running + counts.queued >= limits.running_jobs + limits.queued_jobs
        return schemas.HealthResponse(
            status="unhealthy" if failing else "healthy",
            version=__version__,
            contract_version=self._settings.contract_version,
            accepting=counts is not None and not full and not self._draining,
            jobs=numbers,
            failing=failing,
        )

    async def _count(self) -> None:
        if time.monotonic() - self._counted_at <= HEALTH_CACHE_S:
            return
        try:
            async with asyncio.timeout(HEALTH_S):
                self._counts, self._draining = await asyncio.to_thread(
                    lambda: (self._store.count_jobs(), self._store.is_draining())
                )
        except (SQLAlchemyError, TimeoutError):
            self._counts, self._draining = None, False
        self._counted_at = time.monotonic()


def speakers_of(result: bytes) -> list[str]:
    """Return the speaker ids of a result, in order."""
    return sorted({segment["speaker"]["speaker_id"] for segment in json.loads(result)["segments"]})


def _actor(job: Job) -> str | None:
    return job.actor_name if job.state is JobState.RUNNING else None


def iso(epoch_s: float) -> str:
    """Return the time as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
