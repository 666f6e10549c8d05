"""The aligner's settings. Importing this loads no model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.watchdog import LONGEST_S


class AlignerConfig(BaseModel):
    """Which aligner runs, where the recogniser has no word times of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["proportional", "ctc"] = "proportional"
    """`proportional`: each word gets a share of its utterance by its length in letters; listens to nothing.
    `ctc`: the acoustic model of the transcript's language (wav2vec2), and proportional where it has none."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    models: dict[str, str] = {}
    """`ctc`: language (ISO 639-1) to a model's name on the Hugging Face hub, or a local folder;
    before and beside whisperX's own table."""
    preload: tuple[str, ...] = ()
    """`ctc`: languages whose models are loaded at start, which fails where one cannot be had; others when needed."""
    models_kept: int = Field(default=2, ge=1)
    """`ctc`: so many models stay loaded, the least recently used one goes. While one loads there is one more."""
    device: str = "cpu"
    """`ctc`: a torch device."""
    threads: int = Field(default=1, ge=1)
    """`ctc`: threads of torch. More than one is a loss on a busy machine: OpenMP's threads spin while they wait."""
    batch_items: int = Field(default=16, ge=1)
    """`ctc`: chunks, of all jobs, that are aligned in one call."""
    batch_s: float = Field(default=30.0, gt=0)
    """`ctc`: seconds of padded audio in one pass of the acoustic model; one utterance may be longer. A CPU is faster
    with little at a time, which stays in its cache (measured); a GPU wants minutes."""


def model_version(config: AlignerConfig) -> str:
    """What times the words, such as `ctc-wav2vec2` or `proportional`."""
    return "ctc-wav2vec2" if config.engine == "ctc" else config.engine
