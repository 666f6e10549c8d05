"""Runs each step of a job once over all attempts and runs: its answer is one that was saved before, or a new one.

Also times the stages that the steps belong to. Knows nothing of what the steps do.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from serve_app.observability.tracing import UNTRACED, Trace
from serve_app.storage.timeline import EventKind, Mark

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from serve_app.jobs.stages import Step, TimedStage
    from serve_app.pipeline.checkpoint_writer import CheckpointWriter
    from serve_app.storage.checkpoints import Saved

Answer = TypeVar("Answer")


@dataclass(slots=True)
class StageTimer:
    """The wall time of each stage: stages run side by side, so the sum of `seconds` is more than the whole."""

    seconds: dict[TimedStage, float] = field(default_factory=dict)
    trace: Trace = UNTRACED
    _marks: list[Mark] = field(default_factory=list)
    _running: Counter[TimedStage] = field(default_factory=Counter)

    @contextmanager
    def time(self, stage: TimedStage) -> Iterator[None]:
        """Time a block. Of the blocks of one stage, which begin together, the longest counts."""
        started = time.monotonic()
        if not self._running[stage]:
            self._mark(EventKind.STAGE_STARTED, stage)
        self._running[stage] += 1
        try:
            with self.trace.span(stage):
                yield
        finally:
            self.seconds[stage] = max(self.seconds.get(stage, 0.0), time.monotonic() - started)
            self._running[stage] -= 1
            if not self._running[stage]:
                self._mark(EventKind.STAGE_ENDED, stage)

    def _mark(self, kind: EventKind, stage: TimedStage) -> None:
        self._marks.append(Mark(at=time.time(), kind=kind, stage=stage))

    def take(self) -> list[Mark]:
        """Return the beginnings and ends of stages since the last call, for the timeline."""
        marks, self._marks = self._marks, []
        return marks


class StepRunner:
    """Runs steps, times them, and saves the answers of those that succeed. Without `checkpoints` it saves nothing."""

    def __init__(self, checkpoints: CheckpointWriter | None, timer: StageTimer) -> None:
        self._checkpoints = checkpoints
        self._timer = timer
        self._saved: dict[str, Saved] = {}
        self._saved_at = time.monotonic()

    async def open(self) -> None:
        """Look up which steps earlier attempts and runs have saved."""
        if self._checkpoints is not None:
            self._saved = await self._checkpoints.sources()

    def has_saved(self, step: Step, source: str | None = None, *, run: int | None = None) -> bool:
        """Return whether there is a checkpoint of `step`, if given of this `source` and by this `run`."""
        saved = self._saved.get(step)
        return saved is not None and source in {None, saved.source} and run in {None, saved.run}

    async def load(self, step: Step, source: str) -> Any:
        """Return the saved answer, None where there is none that can be used."""
        if self._checkpoints is None or step not in self._saved:
            return None
        return await self._checkpoints.load(step, source)

    async def run(self, step: Step, source: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Await `work`, time it, and save its answer."""
        with self._timer.time(step.timed_as):
            answer = await work()
        self.save(step, source, answer)
        return answer

    async def load_or_run(self, step: Step, source: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the saved answer, or else run the step."""
        saved: Answer | None = await self.load(step, source)
        return await self.run(step, source, work) if saved is None else saved

    def save_at_intervals(self, step: Step, source: str, answer: Callable[[], Any], *, interval_s: float) -> None:
        """Save the answer that a long step has by now, unless that was done less than `interval_s` ago."""
        if time.monotonic() - self._saved_at > interval_s:
            self._saved_at = time.monotonic()
            self.save(step, source, answer())

    def save(self, step: Step, source: str, answer: Any) -> None:
        """Save an answer that no work of this attempt has given."""
        if self._checkpoints is not None:
            self._checkpoints.save(step, source, answer)
