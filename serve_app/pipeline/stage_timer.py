"""Wall time of each stage, for the result, the job's timeline and its trace."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serve_app.observability.tracing import UNTRACED, Trace
from serve_app.storage.timeline import EventKind, Mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.jobs.stages import TimedStage


@dataclass(slots=True)
class StageTimer:
    """`seconds` by stage: stages run side by side, so their sum is more than the whole."""

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
        """Return the beginnings and ends of stages since the last call."""
        marks, self._marks = self._marks, []
        return marks
