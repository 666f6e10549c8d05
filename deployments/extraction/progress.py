"""How far an extraction is, reported to the job's actor. Knows nothing of how a video is downloaded or decoded."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

REPORT_EVERY_S = 0.5


class Part(StrEnum):
    """The parts of an extraction, in order."""

    DOWNLOAD = "download"
    EXTRACT = "extract"
    """Decoding."""


class ProgressReporter:
    """Reports each part's beginning and end, and at most every `REPORT_EVERY_S` between."""

    def __init__(self, actor: Any) -> None:
        """`actor` is the handle of a Ray actor with a method `report_progress(part, fraction)`, or None."""
        self._actor = actor
        self._next_at = dict.fromkeys(Part, 0.0)

    def report_progress(self, part: Part, fraction: float) -> None:
        """Report that `fraction` (0-1) of `part` is done, unless a report was made just before. Never waits."""
        now = time.monotonic()
        if self._actor is None or (now < self._next_at[part] and fraction < 1.0):
            return
        self._next_at[part] = now + REPORT_EVERY_S
        # A job actor that the release before has started knows the method by its former name only.
        report = getattr(self._actor, "report_progress", None) or self._actor.stage_progress
        report.remote(part.value, fraction)
