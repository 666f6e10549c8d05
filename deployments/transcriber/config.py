"""The recogniser's settings, and what is known of an engine without loading it.

The HTTP edge imports this for every request: it must stay light.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from deployments.hallucinations.config import HallucinationThresholds
from deployments.watchdog import LONGEST_S

_CODES: Final = """
    af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is
    it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl
    sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh
"""
MULTILINGUAL: Final = frozenset(_CODES.split())
"""The 99 languages of every multilingual model, by Whisper's own codes: ISO 639-1, with `haw` and `jw` (Javanese)."""
EVERY_MODELS: Final = MULTILINGUAL | {"yue"}
"""The languages of at least one model: only models of the third generation know Cantonese."""
THIRD_GENERATION: Final = ("large-v3", "turbo")
"""Parts of the names of the models of the third generation; the name `large` means one of them, too."""
ENGLISH_ONLY: Final = ".en"
"""Suffix of the names of English-only models."""


class TranscriberConfig(BaseModel):
    """Settings of the recogniser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["whisperx"] = "whisperx"
    """`whisperx`: Whisper on CTranslate2, as whisperX runs it; any size, any language, CPU or GPU."""
    model: str = Field(default="base", min_length=1)
    """A size, a repository of the Hugging Face hub, or the folder of a converted model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` uses a GPU if there is one."""
    compute_type: str = "auto"
    """CTranslate2's compute type; `auto` is float16 on a GPU and int8 on a CPU."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of one computation on a CPU; None: the library chooses."""
    max_chunk_s: float = Field(default=30.0, gt=0, le=30)
    """Speech is cut at pauses into chunks no longer than this. Whisper computes 30 s for any chunk, or 20 on a CPU for
    those of at most 17."""
    batch_size: int = Field(default=8, ge=1, le=64)
    """Most chunks, of all jobs, in one batch."""
    beam_size: int = Field(default=5, ge=1, le=20)
    """Hypotheses of the beam search."""
    longest_call_s: float = Field(default=LONGEST_S, gt=0)
    """One call of the engine that takes longer is stuck: the replica's process ends, and Serve starts another."""
    guard: HallucinationThresholds = HallucinationThresholds()
    """From which values on a text is doubted."""

    @field_validator("engine", mode="before")
    @classmethod
    def _refuse_removed_engine(cls, engine: object) -> object:
        if engine == "pocketsphinx":
            raise ValueError(
                "pocketsphinx is gone: write {engine: whisperx, model: base, device: cpu}, and in the environment"
                " ML_SERVER_TRANSCRIBER__ENGINE=whisperx"
            )
        return engine


def languages(config: TranscriberConfig) -> frozenset[str]:
    """Return the codes of the languages that the model knows: ISO 639-1, and three of Whisper's own."""
    name = _model_name(config)
    if name.endswith(ENGLISH_ONLY):
        return frozenset({"en"})
    if name == "large" or any(part in name for part in THIRD_GENERATION):
        return EVERY_MODELS
    return MULTILINGUAL


def detects_language(config: TranscriberConfig) -> bool:
    """Return whether the engine can detect the spoken language."""
    return len(languages(config)) > 1


def model_version(config: TranscriberConfig) -> str:
    """Return the result's `model_version`, such as `whisperx-large-v3`."""
    return f"{config.engine}-{_model_name(config)}"


def _model_name(config: TranscriberConfig) -> str:
    """Return the model's name without its folder or owner."""
    return PurePath(config.model).name
