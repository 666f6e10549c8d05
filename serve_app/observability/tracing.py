"""One trace per run of a job, from its POST to the acknowledged callback, whichever processes work on it.

    POST ─┬─ queue
          ├─ attempt ─┬─ extraction, transcription, … assembly      stages, side by side with
          │           ├─ extractor.prepare, aligner.align, …        each try of each call, and
          │           └─ progress callback                          each try of those
          ├─ terminal callback                                      each try
          └─ acknowledged                   from the run's end to the acknowledgement

The ids of a trace, of its POST and of its attempts are computed from the job's row and timeline, so every process that
knows the job can add to a trace that others began, perhaps hours ago. A span is sent when it has ended. The span of an
attempt is sent when the run has ended, from the timeline, since a killed process sends nothing; for the same reason no
other span has spans below it: they would lose their parent. Without a collector nothing is loaded, queried or stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from serve_app import __version__
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deployments.net.traces import Collector
    from serve_app.jobs.job import Job
    from serve_app.settings import Settings
    from serve_app.storage.job_store import JobStore
    from serve_app.storage.timeline import Event

SERVICE = "ecg-ml-server"
POST = "POST process-video"
NO_PARENT = 0
FLUSH_S = 2.0
"""How long a process waits at its end until its last spans are sent."""

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run's trace, to which this process adds spans. The default is a trace that sends nothing."""

    send: Callable[..., None] | None = None
    trace_id: int = 0
    post_id: int = 0
    """The span of the POST, the root of the run's other spans."""
    within: int = 0
    """The parent of spans that name none: the POST's span, in a job actor that of its attempt."""

    def add(
        self,
        name: str,
        start_s: float,
        end_s: float,
        /,
        *,
        span_id: int | None = None,
        parent_id: int | None = None,
        error: str | None = None,
        **attributes: Value,
    ) -> None:
        """Send a span that has ended. Times are epoch seconds; `error` is a word for what went wrong."""
        if self.send is not None:
            self.send(
                name,
                trace_id=self.trace_id,
                span_id=span_id or random.getrandbits(64) or 1,
                parent_id=(self.within if parent_id is None else parent_id) or None,
                start_s=start_s,
                end_s=end_s,
                attributes={f"ecg.{key}": value for key, value in attributes.items()},
                error=error,
            )

    @contextmanager
    def span(self, name: str, *, parent_id: int | None = None, **attributes: Value) -> Iterator[dict[str, Any]]:
        """Send a span of the block, whose entries in the dictionary are attributes, an exception's class `error`."""
        notes: dict[str, Any] = {**attributes}
        start_s, began = time.time(), time.monotonic()
        try:
            yield notes
        except BaseException as error:
            notes["error"] = type(error).__name__
            raise
        finally:
            self.add(name, start_s, start_s + time.monotonic() - began, parent_id=parent_id, **notes)

    def add_timeline(self, events: Sequence[Event]) -> None:
        """Send the spans that an ended run's timeline gives: its wait in the queue and all of its attempts."""
        begun: Event | None = None
        for event in events:
            if begun is not None and event.kind in _ENDED_BY[begun.kind]:
                self._add_event(begun, event)
                begun = None
            if event.kind in _ENDED_BY:
                begun = event

    def _add_event(self, begun: Event, end: Event) -> None:
        if begun.kind is EventKind.QUEUED:
            self.add("queue", begun.at, end.at, parent_id=self.post_id, error=end.detail)
            return
        error = "died" if end.kind is EventKind.ATTEMPT else end.detail
        about: dict[str, Value] = {"attempt": begun.attempt, "end": str(end.kind)}
        span_id = self.attempt_id(begun)
        self.add("attempt", begun.at, end.at, span_id=span_id, parent_id=self.post_id, error=error, **about)

    def attempt_id(self, attempt: Event) -> int:
        """Return the id of an attempt's span, by when it began: the number of one given back is used again."""
        return _ids(f"{self.trace_id:x} {self.post_id:x} {attempt.at!r}")[1]


UNTRACED = Trace()
_ENDS = frozenset((EventKind.COMPLETED, EventKind.FAILED))
_ENDED_BY = {
    EventKind.QUEUED: _ENDS | {EventKind.STARTED},
    EventKind.ATTEMPT: _ENDS | {EventKind.GIVEN_BACK, EventKind.ATTEMPT},
}
"""Events that begin a span, and those that end it."""


class Tracer:
    """The traces that one process adds to. Its failures are never raised: a span that cannot be sent is lost."""

    def __init__(self, settings: Settings, store: JobStore, *, process: str) -> None:
        """`process` is the name of this process in its spans."""
        self._store = store
        self._collector: Collector | None = None
        config = settings.tracing
        if config.endpoint is not None:
            from deployments.net.traces import Collector

            service = {"service.name": SERVICE, "service.version": __version__, "ecg.process": process}
            self._collector = Collector(config.url, service=service, ratio=config.sampling_ratio)

    def of(self, job: Job) -> Trace:
        """Return the trace of the job's present run."""
        return self._place(job)[0]

    async def of_id(self, job_id: str) -> Trace:
        """Return the trace of the present run of the job with this id."""
        if self._collector is None:
            return UNTRACED
        try:
            job = await asyncio.to_thread(self._store.fetch_job, job_id)
        except SQLAlchemyError:
            return UNTRACED
        return UNTRACED if job is None else self.of(job)

    async def of_attempt(self, job: Job) -> Trace:
        """Return the trace of a job for its newest attempt, whose span is the parent of what it adds."""
        trace = self.of(job)
        attempts = [event for event in await self._events(trace, job) if event.kind is EventKind.ATTEMPT]
        return replace(trace, within=trace.attempt_id(attempts[-1])) if attempts else trace

    def posted(self, job: Job, start_s: float) -> None:
        """Send the span of the POST that began the run, after its answer; `start_s` in epoch seconds."""
        trace, parent_id = self._place(job)
        plain = {name: value for name, value in job.options.shown.items() if not isinstance(value, tuple)}
        about = {"job_id": job.job_id, "run": job.run, **plain}
        trace.add(POST, start_s, time.time(), span_id=trace.post_id, parent_id=parent_id, **about)

    async def ended(self, job: Job) -> None:
        """Send the spans that the timeline of a run that has just ended gives."""
        trace = self.of(job)
        trace.add_timeline(await self._events(trace, job))

    async def _events(self, trace: Trace, job: Job) -> Sequence[Event]:
        """Return the events of the job's present run; none where it is not traced or the database is away."""
        if trace.send is None:
            return ()
        try:
            events = await asyncio.to_thread(self._store.fetch_timeline, job.job_id)
        except SQLAlchemyError:
            return ()
        return [event for event in events if event.run == job.run]

    def _place(self, job: Job) -> tuple[Trace, int]:
        """Return the trace and the parent of its POST: the backend's own span where the POST named one."""
        if self._collector is None:
            return UNTRACED, NO_PARENT
        trace_id, post_id = _ids(f"{job.job_id} {job.run} {job.created_at!r}")
        parent_id, wanted = NO_PARENT, self._collector.wants(trace_id)
        if theirs := _parse(job.options.traceparent):
            trace_id, parent_id, wanted = theirs
        send = self._collector.send if wanted else None
        return Trace(send=send, trace_id=trace_id, post_id=post_id, within=post_id), parent_id

    def accepted(self, traceparent: str | None) -> str | None:
        """Return a POST's `traceparent` as it is stored with the job: None where it is invalid or nothing is traced."""
        return traceparent if self._collector and _parse(traceparent) else None

    async def close(self) -> None:
        """Send the remaining spans; give up after `FLUSH_S`."""
        if self._collector is not None:
            await asyncio.to_thread(self._collector.flush, FLUSH_S)


async def untraced(_job_id: str) -> Trace:
    """Return a trace that sends nothing, for senders whose jobs are not traced."""
    return UNTRACED


def _parse(traceparent: str | None) -> tuple[int, int, bool] | None:
    if traceparent is None:
        return None
    from deployments.net.traces import parse

    return parse(traceparent)


def _ids(seed: str) -> tuple[int, int]:
    """Return the id of a trace and that of a span, the same for the same seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
