"""Runs each step of a job once over all attempts: its answer is the one that an earlier attempt saved, or a new one.

Knows nothing of what the steps do or of where their answers are stored.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from serve_app.jobs.stages import Step
    from serve_app.pipeline.stage_timer import StageTimer

Answer = TypeVar("Answer")


class CheckpointSource(Protocol):
    """Where answers are saved. `source` is one line that changes with what an answer is computed from."""

    async def steps(self) -> frozenset[str]:
        """Return the steps of which earlier attempts have saved something."""

    async def load(self, step: Step, source: str) -> Any:
        """Return the answer computed from `source`, None where there is none that can be used."""

    def save(self, step: Step, source: str, answer: Any) -> None:
        """Store an answer beside the work."""


class StepRunner:
    """Runs steps, times them, and saves the answers of those that succeed. Without `checkpoints` it saves nothing."""

    def __init__(self, checkpoints: CheckpointSource | None, timer: StageTimer) -> None:
        self._checkpoints = checkpoints
        self._timer = timer
        self._saved: frozenset[str] = frozenset()
        self._saved_at = time.monotonic()

    async def open(self) -> None:
        """Look up which steps earlier attempts have saved."""
        if self._checkpoints is not None:
            self._saved = await self._checkpoints.steps()

    def has_saved(self, *steps: Step) -> bool:
        """Return whether there are checkpoints of all `steps`, usable or not."""
        return self._saved.issuperset(steps)

    async def load(self, step: Step, source: str) -> Any:
        """Return the saved answer, None where there is none that can be used."""
        if self._checkpoints is None or step not in self._saved:
            return None
        return await self._checkpoints.load(step, source)

    async def run(self, step: Step, source: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Await `work`, time it, and save its answer."""
        with self._timer.time(step.timed_as):
            answer = await work()
        self._save(step, source, answer)
        return answer

    async def load_or_run(self, step: Step, source: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the saved answer, or else run the step."""
        saved: Answer | None = await self.load(step, source)
        return await self.run(step, source, work) if saved is None else saved

    def save_at_intervals(self, step: Step, source: str, answer: Callable[[], Any], *, interval_s: float) -> None:
        """Save the answer that a long step has by now, unless that was done less than `interval_s` ago."""
        if time.monotonic() - self._saved_at > interval_s:
            self._saved_at = time.monotonic()
            self._save(step, source, answer())

    def _save(self, step: Step, source: str, answer: Any) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(step, source, answer)
