"""The emotion stage's settings, and what is known of it without loading it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import PurePath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_DISCLOSURE = (
    "Emotions are estimated by rules (loudness and pitch against the speaker's own norm, and a list of English words),"
    " not by a trained model: take them as hints."
)


class EmotionConfig(BaseModel):
    """Which analyser judges moods."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["prosodic-lexical", "wav2vec2"] = "prosodic-lexical"
    """`prosodic-lexical`: arousal from the voice against the speaker's own norm, valence from English words.
    `wav2vec2`: a trained classifier, which hears the voice alone; any audio classifier of transformers."""

    # For `wav2vec2` only.
    model: str = "superb/wav2vec2-base-superb-er"
    """A directory with the model, or its name on the Hugging Face hub. The default tells four moods, in English."""
    device: str = "cpu"
    """A torch device."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch. More than one is a loss on a busy machine: OpenMP's threads spin while they wait."""
    batch_size: int = Field(default=8, ge=1)
    """Windows, of up to 15 s each, that the network hears at once."""


def model_version(config: EmotionConfig) -> str:
    """What judged, such as `prosodic-lexical-1+vader-3.3.2` or `wav2vec2-base-superb-er`."""
    if config.engine == "wav2vec2":
        return PurePath(config.model).name
    return f"{config.engine}-1+vader-{version('vaderSentiment')}"


def warnings(config: EmotionConfig) -> tuple[str, ...]:
    """What a reader of the result has to know of this engine."""
    return {"prosodic-lexical": (_DISCLOSURE,), "wav2vec2": ()}[config.engine]
