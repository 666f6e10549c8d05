"""What can be set about diarization."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PIECE_S = 60.0
"""Length of the piece that the driver gives to one call of `segment` and `embed`: about two seconds of work each."""


class DiarizerConfig(BaseModel):
    """Settings of the diarizer. docs/decisions.md says on which data each value was chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["pyannote-ge2e"] = "pyannote-ge2e"
    """`pyannote-ge2e`: pyannote's pipeline on the network in whisperx and the voice encoder in resemblyzer."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is a loss on a busy machine: OpenMP's threads spin while they wait."""
    step_s: float = Field(default=1.0, ge=0.25, le=2.5)
    """Step of the 5 s segmentation window. pyannote's own 0.5 s costs twice the time and found nothing more here."""
    activity_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Score above which a local speaker is active."""
    min_gap_s: float = Field(default=0.3, ge=0)
    """A shorter gap inside one speaker's turn is filled."""
    clustering_threshold: float = Field(default=0.22, gt=0, lt=2)
    """Cosine distance (average linkage) up to which voices are one speaker."""
    min_own_speech_s: float = Field(default=2.0, ge=0, le=5)
    """Only who speaks so long alone within a window takes part in finding the speakers; the others are assigned."""
    min_cluster_size: int = Field(default=3, ge=1)
    """A smaller cluster of embeddings is no speaker: it goes to the nearest larger one."""
    min_cluster_share: float = Field(default=0.01, ge=0, lt=0.5)
    """The same, as a share of all that are clustered: matters from five minutes of speech on."""
    max_clustered: int = Field(default=2500, ge=100)
    """Linkage needs memory by the square of this. Beyond, embeddings spread evenly over time stand for all."""
