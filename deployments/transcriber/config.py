"""The recogniser's settings, and what is known of it without loading it.

Imported by the HTTP edge for every request: light, and it must stay so.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from deployments.hallucinations.config import HallucinationThresholds
from deployments.transcriber import whisper_languages
from deployments.watchdog import LONGEST_S


class TranscriberConfig(BaseModel):
    """Which recogniser runs, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["whisperx"] = "whisperx"
    """`whisperx`: Whisper on CTranslate2, as whisperX runs it; any size, any language, CPU or GPU."""
    model: str = Field(default="base", min_length=1)
    """A size, a repository of the hub, or the folder of a converted model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU where there is one."""
    compute_type: str = "auto"
    """CTranslate2's name of the arithmetic; `auto` is float16 on a GPU and int8 on a CPU."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one computation on a CPU; None for the library's own choice."""
    max_chunk_s: float = Field(default=30.0, gt=0, le=30)
    """The caller cuts speech at pauses into chunks no longer than this. Whisper computes 30 s at a time, however short
    the chunk."""
    batch_size: int = Field(default=8, ge=1, le=64)
    """Chunks that are computed together, across jobs."""
    beam_size: int = Field(default=5, ge=1, le=20)
    """Hypotheses that are followed at once."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    guard: HallucinationThresholds = HallucinationThresholds()
    """From which values on a text is doubted."""

    @field_validator("engine", mode="before")
    @classmethod
    def _names_one_that_is_left(cls, engine: object) -> object:
        if engine == "pocketsphinx":
            raise ValueError(
                "pocketsphinx is gone: write {engine: whisperx, model: base, device: cpu}, and in the environment"
                " ML_SERVER_TRANSCRIBER__ENGINE=whisperx"
            )
        return engine


def languages(config: TranscriberConfig) -> frozenset[str]:
    """Codes of the languages that the model knows; ISO 639-1 but for three of Whisper's own."""
    return whisper_languages.known_to(_model_name(config))


def detects_language(config: TranscriberConfig) -> bool:
    """Whether the engine can tell which language is spoken."""
    return len(languages(config)) > 1


def model_version(config: TranscriberConfig) -> str:
    """The result's `model_version`, such as `whisperx-large-v3`."""
    return f"{config.engine}-{_model_name(config)}"


def _model_name(config: TranscriberConfig) -> str:
    """The model's name without where it lies."""
    return PurePath(config.model).name
