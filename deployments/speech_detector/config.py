"""Settings of speech detection."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.watchdog import LONGEST_S

PIECE_S = 120.0
"""Length of the piece of one call: about two seconds of work on one core."""


class SpeechDetectorConfig(BaseModel):
    """Settings of the speech detector. The thresholds are whisperx's own; they were not tuned here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["pyannote-segmentation"] = "pyannote-segmentation"
    """`pyannote-segmentation`: the network that the whisperx package carries; needs no download."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    load_at_first_call: bool = False
    """Load the engine with the first job instead of at the start: for a machine whose memory others want meanwhile."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is slower on a busy machine: OpenMP's threads spin while they wait."""
    step_s: float = Field(default=2.5, gt=0, le=5)
    """Step of the 5 s window. Each moment lies in 5 / step windows, whose scores are averaged."""
    onset: float = Field(default=0.5, gt=0, lt=1)
    """Score above which speech begins."""
    offset: float = Field(default=0.363, gt=0, lt=1)
    """Score below which speech ends."""
    min_speech_s: float = Field(default=0.1, ge=0)
    """Shorter speech is dropped."""
    min_silence_s: float = Field(default=0.1, ge=0)
    """A shorter pause is filled."""
    pad_s: float = Field(default=0.05, ge=0)
    """Every span is extended by this much on both sides, so that no first sound is lost."""
    max_span_s: float = Field(default=7.0, ge=2)
    """Longer speech is cut where its score is lowest. Two spans joined over a piece's border stay under 15 s."""
