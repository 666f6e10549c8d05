"""The progress of a job: a number from 0 to 100 and a sentence, from the fractions of stages that run side by side.

The bands are the contract's. The earliest stage that is not done gives the number and the sentence, so a later stage
that runs ahead does not show before its time. The number never falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.jobs.stages import Stage

if TYPE_CHECKING:
    from deployments.errors import Locale

BANDS: dict[Stage, tuple[int, int]] = {
    Stage.QUEUED: (0, 0),
    Stage.STARTING: (0, 10),
    Stage.EXTRACTION: (10, 25),
    Stage.DETECTION: (25, 40),
    Stage.DIARIZATION: (40, 60),
    Stage.TRANSCRIPTION: (60, 75),
    Stage.ANALYSIS: (75, 90),
    Stage.ASSEMBLY: (90, 99),
    Stage.DONE: (100, 100),
}

SENTENCES: dict[Stage, dict[Locale, str]] = {
    Stage.QUEUED: {"ko": "처리 대기 중입니다", "en": "Waiting in the queue"},
    Stage.STARTING: {"ko": "처리를 준비하고 있습니다", "en": "Initialising"},
    Stage.EXTRACTION: {"ko": "오디오를 추출하고 있습니다", "en": "Downloading and extracting audio"},
    Stage.DETECTION: {"ko": "음성 구간을 감지하고 있습니다", "en": "Detecting speech"},
    Stage.DIARIZATION: {"ko": "화자를 식별하고 있습니다", "en": "Identifying speakers"},
    Stage.TRANSCRIPTION: {"ko": "음성을 전사하고 있습니다", "en": "Transcribing speech"},
    Stage.ANALYSIS: {"ko": "감정과 신뢰도를 분석하고 있습니다", "en": "Analysing emotion and confidence"},
    Stage.ASSEMBLY: {"ko": "결과를 정리하고 있습니다", "en": "Putting the result together"},
    Stage.DONE: {"ko": "비디오 처리가 완료되었습니다", "en": "Video processing completed"},
}

WORKING: tuple[Stage, ...] = tuple(BANDS)[1:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a progress callback carries: 0-100, and the stage whose sentence goes with it."""

    percent: int
    stage: Stage


class ProgressMeter:
    """Collects the fractions of all stages of one run; `now` is how far the run is."""

    def __init__(self, at_least: int = 0) -> None:
        """`at_least` is the percentage that an earlier attempt of the same run has reported."""
        self._fractions: dict[Stage, float] = dict.fromkeys(WORKING, 0.0)
        self._percent = at_least

    def report_progress(self, stage: Stage, fraction: float) -> None:
        """Store that `fraction` (0-1) of `stage` is done; 1 ends it. A smaller value than before is ignored."""
        self._fractions[stage] = max(self._fractions[stage], min(1.0, fraction))

    @property
    def now(self) -> Progress:
        """The percentage, never smaller than before, and the stage that the sentence names."""
        stage = next((stage for stage in WORKING if self._fractions[stage] < 1), Stage.ASSEMBLY)
        low, high = BANDS[stage]
        self._percent = max(self._percent, int(low + (high - low) * self._fractions[stage]))
        return Progress(percent=self._percent, stage=stage)
