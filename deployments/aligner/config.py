"""Settings of word times. Importing this loads no model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployments.watchdog import LONGEST_S


class AlignerConfig(BaseModel):
    """What times the words: the recogniser itself, or acoustic models in a deployment of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["cross-attention", "ctc"] = "cross-attention"
    """`cross-attention`: the recogniser's own attention, corrected by the sound; every language, in the Transcriber.
    `ctc`: acoustic models (wav2vec2) for the languages of `models`, in the Aligner; cross-attention for all others."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    models: dict[str, str] = {}
    """`ctc`: language (ISO 639-1) to a model's name on the Hugging Face hub, or a local folder."""
    preload: tuple[str, ...] = ()
    """`ctc`: languages whose models are loaded at start, which fails if one is missing; others load when needed."""
    models_kept: int = Field(default=2, ge=1)
    """`ctc`: most models that stay loaded, beside one that is loading; the least recently used one is released."""
    device: str = "cpu"
    """`ctc`: a torch device."""
    threads: int = Field(default=1, ge=1)
    """`ctc`: threads of torch. More than one is slower on a busy machine: OpenMP's threads spin while they wait."""
    batch_items: int = Field(default=16, ge=1)
    """`ctc`: most chunks, of all jobs, in one batch."""
    batch_s: float = Field(default=30.0, gt=0)
    """`ctc`: seconds of padded audio in one pass of the acoustic model; one utterance may be longer. A CPU is faster
    with little at a time, which fits into its cache (measured); a GPU needs minutes."""

    @field_validator("engine", mode="before")
    @classmethod
    def _refuse_removed_engine(cls, engine: Any) -> Any:
        if engine == "proportional":
            raise ValueError("aligner.engine: proportional is gone; write cross-attention, which is the default")
        return engine

    @model_validator(mode="after")
    def _has_models(self) -> AlignerConfig:
        if self.engine == "ctc" and not self.models:
            raise ValueError("aligner.engine: ctc has no models: name one by language, or write cross-attention")
        return self


def timed_by_ctc(config: AlignerConfig) -> frozenset[str]:
    """Return the languages whose words the Aligner times; the Transcriber times those of all others."""
    return frozenset(config.models) if config.engine == "ctc" else frozenset()


def model_version(config: AlignerConfig) -> str:
    """Return what times the words, such as `ctc-wav2vec2` or `cross-attention`."""
    return "ctc-wav2vec2" if config.engine == "ctc" else config.engine
