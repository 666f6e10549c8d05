"""One trace per run of a job, from its POST to the acknowledged callback, whichever processes work on it.

    POST ─┬─ queue
          ├─ attempt ─┬─ extraction, transcription, … assembly      stages, side by side with
          │           ├─ extractor.prepare, aligner.align, …        each try of each call, and
          │           └─ progress callback                          each try of those
          ├─ terminal callback                                      each try
          └─ acknowledged                   from the run's end to the acknowledgement

The ids of a trace, of its POST and of its attempts follow from the job's row and timeline, so that a process that
knows the job adds to the trace that others began, perhaps hours ago. A span is told when it is over; that of an
attempt when the run is, from the timeline, since a process that was killed tells nothing. For the same reason nothing
else has spans below it: they would lose their parent. By default there is no collector, and then nothing is loaded,
asked or kept. Knows nothing of how spans travel (`deployments/net/traces.py`).
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
"""What the end of a process waits for its last spans, at the most."""

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run's trace, to which this process adds. As it comes by itself: of a job that is not traced."""

    send: Callable[..., None] | None = None
    trace_id: int = 0
    post_id: int = 0
    """The span that all others are below."""
    within: int = 0
    """The span that those are in for which nobody says otherwise: the POST's, in a driver its attempt's."""

    def add(
        self,
        name: str,
        start_s: float,
        end_s: float,
        *,
        span_id: int | None = None,
        parent_id: int | None = None,
        error: str | None = None,
        **attributes: Value,
    ) -> None:
        """Tell of what is over. Times are epoch seconds; `error` is a word for what went wrong."""
        if self.send is not None:
            self.send(
                name,
                trace_id=self.trace_id,
                span_id=span_id or _new_id(),
                parent_id=(self.within if parent_id is None else parent_id) or None,
                start_s=start_s,
                end_s=end_s,
                attributes={f"ecg.{key}": value for key, value in attributes.items()},
                error=error,
            )

    @contextmanager
    def span(self, name: str, *, parent_id: int | None = None, **attributes: Value) -> Iterator[dict[str, Any]]:
        """Around a piece of work. What is put into the dictionary is told, too; an exception's class is its `error`."""
        notes: dict[str, Any] = {**attributes}
        start_s, began = time.time(), time.monotonic()
        try:
            yield notes
        except BaseException as error:
            notes["error"] = type(error).__name__
            raise
        finally:
            self.add(name, start_s, start_s + time.monotonic() - began, parent_id=parent_id, **notes)

    def ended(self, events: Sequence[Event]) -> None:
        """Tell what the timeline of the run knows: how long it waited, and its attempts, the killed ones, too."""
        begun: Event | None = None
        for event in events:
            if begun is not None and event.kind in _AFTER[begun.kind]:
                self._over(begun, event)
                begun = None
            if event.kind in _AFTER:
                begun = event

    def _over(self, begun: Event, end: Event) -> None:
        if begun.kind is EventKind.QUEUED:
            self.add("queue", begun.at, end.at, parent_id=self.post_id, error=end.detail)
            return
        error = "died" if end.kind is EventKind.ATTEMPT else end.detail
        about: dict[str, Value] = {"attempt": begun.attempt, "end": str(end.kind)}
        span_id = self.attempt_id(begun)
        self.add("attempt", begun.at, end.at, span_id=span_id, parent_id=self.post_id, error=error, **about)

    def attempt_id(self, attempt: Event) -> int:
        """An attempt's span, by when it began: a number comes again after an attempt was given back."""
        return _ids(f"{self.trace_id:x} {self.post_id:x} {attempt.at!r}")[1]


UNTRACED = Trace()
_ENDS = frozenset((EventKind.COMPLETED, EventKind.FAILED))
_AFTER = {
    EventKind.QUEUED: _ENDS | {EventKind.STARTED},
    EventKind.ATTEMPT: _ENDS | {EventKind.GIVEN_BACK, EventKind.ATTEMPT},
}
"""What begins, and what ends it."""


class Tracer:
    """The traces that one process adds to. It never fails for its own sake: what is not told is lost."""

    def __init__(self, settings: Settings, store: JobStore, *, process: str) -> None:
        """`process` is what the spans call it."""
        self._store = store
        self._collector: Collector | None = None
        config = settings.tracing
        if config.endpoint is not None:
            from deployments.net.traces import Collector

            service = {"service.name": SERVICE, "service.version": __version__, "ecg.process": process}
            self._collector = Collector(config.url, service=service, ratio=config.sampling_ratio)

    def of(self, job: Job) -> Trace:
        """The trace of the job's run."""
        return self._place(job)[0]

    async def of_id(self, job_id: str) -> Trace:
        """The same, by the row as it is now."""
        if self._collector is None:
            return UNTRACED
        try:
            job = await asyncio.to_thread(self._store.get, job_id)
        except SQLAlchemyError:
            return UNTRACED
        return UNTRACED if job is None else self.of(job)

    async def of_attempt(self, job: Job) -> Trace:
        """For the driver that has just begun an attempt: what it does is below that."""
        trace = self.of(job)
        attempts = [event for event in await self._events(trace, job) if event.kind is EventKind.ATTEMPT]
        return replace(trace, within=trace.attempt_id(attempts[-1])) if attempts else trace

    def posted(self, job: Job, start_s: float) -> None:
        """Tell of the POST that began the run, now that its answer is known."""
        trace, parent_id = self._place(job)
        about = {"job_id": job.job_id, "run": job.run, **job.options.content}
        trace.add(POST, start_s, time.time(), span_id=trace.post_id, parent_id=parent_id, **about)

    async def ended(self, job: Job) -> None:
        """Tell of the run, which has just ended, what its timeline knows."""
        trace = self.of(job)
        trace.ended(await self._events(trace, job))

    async def _events(self, trace: Trace, job: Job) -> Sequence[Event]:
        """Of the job's present run; none where nobody wants to know."""
        if trace.send is None:
            return ()
        try:
            events = await asyncio.to_thread(self._store.timeline, job.job_id)
        except SQLAlchemyError:
            return ()
        return [event for event in events if event.run == job.run]

    def _place(self, job: Job) -> tuple[Trace, int]:
        """The trace, and what its POST is below: the backend's own span where the POST named one."""
        if self._collector is None:
            return UNTRACED, NO_PARENT
        trace_id, post_id = _ids(f"{job.job_id} {job.run} {job.created_at!r}")
        parent_id, wanted = NO_PARENT, self._collector.wants(trace_id)
        if theirs := _parse(job.options.traceparent):
            trace_id, parent_id, wanted = theirs
        send = self._collector.send if wanted else None
        return Trace(send=send, trace_id=trace_id, post_id=post_id, within=post_id), parent_id

    def taken(self, traceparent: str | None) -> str | None:
        """A POST's header as it is kept with the job: None where there is no trace to go on with."""
        return traceparent if self._collector and _parse(traceparent) else None

    async def close(self) -> None:
        """Send what is not sent, as far as that is soon done."""
        if self._collector is not None:
            await asyncio.to_thread(self._collector.flush, FLUSH_S)


async def untraced(_job_id: str) -> Trace:
    """For senders whose jobs are not traced."""
    return UNTRACED


def _parse(traceparent: str | None) -> tuple[int, int, bool] | None:
    if traceparent is None:
        return None
    from deployments.net.traces import parse

    return parse(traceparent)


def _ids(seed: str) -> tuple[int, int]:
    """A trace's id and a span's, the same for the same seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _new_id() -> int:
    return random.getrandbits(64) or 1
