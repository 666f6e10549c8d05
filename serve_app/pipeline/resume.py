"""A step of a run, once: its answer is the one that an earlier attempt has left, or is worked out now and left too.

Knows nothing of the steps themselves or of where their answers are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from serve_app.observability.tracing import UNTRACED, Trace
from serve_app.storage.timeline import EventKind, Mark

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from serve_app.pipeline.checkpoint_codec import Step

Answer = TypeVar("Answer")


class CheckpointSource(Protocol):
    """Where answers are kept. `source` is one line that tells what an answer was made from."""

    async def steps(self) -> frozenset[str]:
        """Those of which earlier attempts have kept something."""

    async def find(self, step: Step, source: str) -> Any:
        """The answer made from `source`, None where there is none to rely on."""

    def keep(self, step: Step, source: str, answer: Any) -> None:
        """Keep an answer beside the work."""


class NoCheckpoints:
    """For a run that nobody resumes."""

    async def steps(self) -> frozenset[str]:
        """None."""
        return frozenset()

    async def find(self, step: Step, source: str) -> Any:
        """Nothing."""

    def keep(self, step: Step, source: str, answer: Any) -> None:
        """Forget it."""


@dataclass(slots=True)
class StageTimer:
    """Wall time of each stage; stages overlap, so the sum is more than the whole."""

    seconds: dict[str, float] = field(default_factory=dict)
    trace: Trace = UNTRACED
    _marks: list[Mark] = field(default_factory=list)
    _at_work: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Around a stage's work, or a part of it that starts with the others."""
        started = time.monotonic()
        if not self._at_work[stage]:
            self._mark(EventKind.STAGE_STARTED, stage)
        self._at_work[stage] += 1
        try:
            with self.trace.span(stage):
                yield
        finally:
            self.seconds[stage] = max(self.seconds.get(stage, 0.0), time.monotonic() - started)
            self._at_work[stage] -= 1
            if not self._at_work[stage]:
                self._mark(EventKind.STAGE_ENDED, stage)

    def _mark(self, kind: EventKind, stage: str) -> None:
        self._marks.append(Mark(at=time.time(), kind=kind, stage=stage))

    def take(self) -> list[Mark]:
        """Beginnings and ends of stages since the last time somebody asked."""
        marks, self._marks = self._marks, []
        return marks


class Resumer:
    """Does each step once over all attempts. Only work that succeeded is kept, and only work is timed."""

    def __init__(self, kept: CheckpointSource, clock: StageTimer) -> None:
        self._kept = kept
        self._clock = clock
        self._there: frozenset[str] = frozenset()
        self._kept_at = time.monotonic()

    async def open(self) -> None:
        """See what is there."""
        self._there = await self._kept.steps()

    def has(self, *steps: Step) -> bool:
        """Whether all of these are there, sound or not."""
        return self._there.issuperset(steps)

    async def find(self, step: Step, source: str) -> Any:
        """The answer that was kept, None where there is none to rely on."""
        return await self._kept.find(step, source) if step in self._there else None

    def keep(self, step: Step, source: str, answer: Any) -> None:
        """Keep an answer."""
        self._kept.keep(step, source, answer)

    def keep_now_and_then(self, step: Step, source: str, so_far: Callable[[], Any], *, every_s: float) -> None:
        """Keep what there is of a long step's answer, unless that was done less than `every_s` ago."""
        if time.monotonic() - self._kept_at > every_s:
            self._kept_at = time.monotonic()
            self._kept.keep(step, source, so_far())

    async def once(
        self, step: Step, source: str, work: Callable[[], Awaitable[Answer]], *, timed_as: str | None = None
    ) -> Answer:
        """The answer that was kept, else that of `work`, kept now; `timed_as`: what the work's time is told as."""
        found: Answer | None = await self.find(step, source)
        if found is not None:
            return found
        with self._clock.time(timed_as) if timed_as else nullcontext():
            answer = await work()
        self._kept.keep(step, source, answer)
        return answer


def source_of(*parts: str | bytes) -> str:
    """One line that changes with what an answer is made from."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()
