"""The emotion stage's settings, and what is known of it without loading it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict

_DISCLOSURE = (
    "Emotions are estimated by rules (loudness and pitch against the speaker's own norm, and a list of English words),"
    " not by a trained model: take them as hints."
)


class EmotionConfig(BaseModel):
    """Which analyser judges moods."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Literal["prosodic-lexical"] = "prosodic-lexical"
    """`prosodic-lexical`: arousal from the voice against the speaker's own norm, valence from English words."""


def model_version(config: EmotionConfig) -> str:
    """What judged, such as `prosodic-lexical-1+vader-3.3.2`."""
    return f"{config.engine}-1+vader-{version('vaderSentiment')}"


def warnings(config: EmotionConfig) -> tuple[str, ...]:
    """What a reader of the result has to know of this engine."""
    return {"prosodic-lexical": (_DISCLOSURE,)}[config.engine]
