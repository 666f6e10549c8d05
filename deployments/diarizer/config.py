"""Settings of diarization, and what is known of an engine without loading it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.watchdog import LONGEST_S

PIECE_S = 60.0
"""Length of the piece of one call of `segment` or `embed`: about two seconds of work."""


class SpeakerCounts(TypedDict, total=False):
    """How many speakers a video has, where a call knows."""

    min_speakers: int | None
    max_speakers: int | None
    num_speakers: int | None


class DiarizerConfig(BaseModel):
    """Settings of the diarizer. docs/decisions.md says on which data each value was chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["pyannote-ge2e", "pyannote"] = "pyannote-ge2e"
    """`pyannote-ge2e`: pyannote's pipeline on the network in whisperx and the voice encoder in resemblyzer.
    `pyannote`: a trained pipeline with its own networks, clustering and settings."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    load_at_first_call: bool = False
    """Load the engine with the first job instead of at the start: for a machine whose memory others want meanwhile."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is slower on a busy machine: OpenMP's threads spin while they wait."""
    max_clustered: int = Field(default=2500, ge=100)
    """Most embeddings that are clustered, evenly spread over time: the memory of linkage grows by the square of it."""
    num_speakers: int | None = Field(default=None, ge=1)
    """Number of speakers of every video. A call's own counts replace this and the next two."""
    min_speakers: int | None = Field(default=None, ge=1)
    """Least number of speakers of every video."""
    max_speakers: int | None = Field(default=None, ge=1)
    """Most speakers of every video."""

    # For `pyannote` only.
    model: str = "pyannote/speaker-diarization-community-1"
    """A folder with the pipeline's config.yaml, or its name on the Hugging Face hub."""
    segmentation_batch_size: int = Field(default=32, ge=1)
    """Windows per pass of the segmentation network."""
    embedding_batch_size: int = Field(default=16, ge=1)
    """Windows per pass of the voice encoder, or as much sound in blocks of 22 s, at least one. It needs most of a GPU's
    memory. Replaces the pipeline's own value."""
    encode_once: bool = True
    """Run the voice encoder once over the sound where it can (WeSpeaker's ResNet34, as community-1's), instead of once
    per window, ten times. False: the vectors are pyannote's own."""
    exclusive: bool = True
    """Whether turns never overlap: words need one speaker, the likeliest one, at each moment."""

    # For `pyannote-ge2e` only: a trained pipeline has its own.
    step_s: float = Field(default=1.0, ge=0.25, le=2.5)
    """Step of the 5 s segmentation window. pyannote's 0.5 s takes twice the time and was no better here."""
    activity_threshold: float = Field(default=0.4, gt=0, lt=1)
    """Score above which a local speaker is active."""
    min_gap_s: float = Field(default=0.3, ge=0)
    """A shorter gap inside one speaker's turn is filled."""
    clustering_threshold: float = Field(default=0.22, gt=0, lt=2)
    """Cosine distance (average linkage) up to which voices are one speaker."""
    min_own_speech_s: float = Field(default=2.0, ge=0, le=5)
    """Least speech without overlap, in a window, of local speakers that are clustered; others are assigned later."""
    min_cluster_size: int = Field(default=3, ge=1)
    """A smaller cluster of embeddings is joined to the nearest larger one."""
    min_cluster_share: float = Field(default=0.01, ge=0, lt=0.5)
    """The same as a share of all clustered embeddings; it matters from five minutes of speech on."""

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        low, high = self.min_speakers or 1, self.max_speakers or float("inf")
        if low > high or (self.num_speakers is not None and not low <= self.num_speakers <= high):
            raise ValueError("num_speakers, min_speakers and max_speakers contradict each other")
        return self

    def counts(
        self, *, min_speakers: int | None = None, max_speakers: int | None = None, num_speakers: int | None = None
    ) -> dict[str, Any]:
        """Return a call's counts; the configured ones where it has none."""
        asked = {"min_speakers": min_speakers, "max_speakers": max_speakers, "num_speakers": num_speakers}
        return asked if any(asked.values()) else {name: getattr(self, name) for name in asked}


def model_version(config: DiarizerConfig) -> str:
    """Return what diarizes, such as `pyannote-ge2e` or `pyannote-speaker-diarization-community-1`."""
    return config.engine if config.engine == "pyannote-ge2e" else f"pyannote-{PurePath(config.model).name}"
