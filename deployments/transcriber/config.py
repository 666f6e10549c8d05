"""The recogniser's settings, and what is known of it without loading it.

Imported by the HTTP edge for every request: light, and it must stay so.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.transcriber import whisper_languages
from deployments.watchdog import LONGEST_S

_DEFAULTS: dict[object, dict[str, Any]] = {"whisperx": {"max_chunk_s": 30.0, "batch_size": 8}}
"""What an engine takes where the config says nothing, and the fields' own defaults do not fit it."""


class Guard(BaseModel):
    """Where a text begins to look invented. The first three are Whisper's own thresholds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compression_ratio: float = Field(default=2.4, gt=1)
    """A text that compresses better than this repeats itself."""
    average_logprob: float = Field(default=-1.0, lt=0)
    """A text less likely than this, per token, is a guess."""
    no_speech: float = Field(default=0.6, gt=0, le=1)
    """A chunk whose probability of holding no speech is above this may be silent."""
    little_speech: float = Field(default=0.3, ge=0, le=1)
    """A chunk of which the speech detector hears less than this share as speech may be silent."""
    temperatures: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """With what a chunk that repeats itself or guesses is tried again, in order."""


class TranscriberConfig(BaseModel):
    """Which recogniser runs, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["pocketsphinx", "whisperx"] = "pocketsphinx"
    """`pocketsphinx`: CMU's small recogniser with the English model in its wheel; no download, CPU only.
    `whisperx`: Whisper on CTranslate2, as whisperX runs it; any size, any language, CPU or GPU."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    max_chunk_s: float = Field(default=8.0, gt=0, le=30)
    """The caller cuts speech at pauses into chunks no longer than this. Longer ones win pocketsphinx no words, only
    longer calls; whisperx computes 30 s at a time, however short the chunk, and so that is its default."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one computation on a CPU; None for the library's own choice (pocketsphinx decodes on one core)."""
    batch_size: int = Field(default=1, ge=1, le=64)
    """Chunks that are computed together, across jobs; 8 for whisperx."""

    model: str = Field(default="large-v3", min_length=1)
    """whisperx: a size, a repository of the hub, or the folder of a converted model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """whisperx: where to compute; `auto` takes a GPU where there is one."""
    compute_type: str = "auto"
    """whisperx: CTranslate2's name of the arithmetic; `auto` is float16 on a GPU and int8 on a CPU."""
    beam_size: int = Field(default=5, ge=1, le=20)
    """whisperx: hypotheses that are followed at once."""
    guard: Guard = Guard()
    """whisperx: against invented text."""

    @model_validator(mode="before")
    @classmethod
    def _engines_own(cls, fields: Any) -> Any:
        return _DEFAULTS.get(fields.get("engine"), {}) | dict(fields) if isinstance(fields, Mapping) else fields


def languages(config: TranscriberConfig) -> frozenset[str]:
    """Codes of the languages that the engine knows; ISO 639-1 but for three of Whisper's own."""
    return frozenset({"en"}) if config.engine == "pocketsphinx" else whisper_languages.known_to(_model_name(config))


def detects_language(config: TranscriberConfig) -> bool:
    """Whether the engine can tell which language is spoken."""
    return len(languages(config)) > 1


def model_version(config: TranscriberConfig) -> str:
    """The result's `model_version`, such as `whisperx-large-v3`, or `pocketsphinx-5.1.1-en-us`."""
    if config.engine == "pocketsphinx":
        return f"{config.engine}-{version(config.engine)}-en-us"
    return f"{config.engine}-{_model_name(config)}"


def has_word_times(config: TranscriberConfig) -> bool:
    """Whether the engine times its own words; where not, the graph needs the Aligner."""
    return config.engine == "pocketsphinx"


def device(config: TranscriberConfig) -> str:
    """Where the engine computes: the result's `device`. `auto` stays `auto`: only the replica knows its machine."""
    return "cpu" if config.engine == "pocketsphinx" else config.device


def _model_name(config: TranscriberConfig) -> str:
    """The model's name without where it lies."""
    return PurePath(config.model).name
