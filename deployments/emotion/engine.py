"""What every emotion analyser looks like, and the one place that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.emotion.config import EmotionConfig
    from deployments.types import Audio, Emotion, Segment, Tracks

LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The words that an engine chooses from."""


class EmotionEngine(Protocol):
    """Judges the mood of segments."""

    def analyze(self, audio: Audio, tracks: Tracks, segments: Sequence[Segment]) -> list[Emotion | None]:
        """One judgement per segment, in order; None where there is nothing to judge by.

        `audio` and `tracks` cover the whole video, `segments` all of it too: a speaker's norm comes from them.
        """
        ...


def create(config: EmotionConfig) -> EmotionEngine:
    """Load the engine that `config` names."""
    from deployments.emotion.prosodic_lexical import ProsodicLexicalEngine

    engines = {"prosodic-lexical": ProsodicLexicalEngine}
    return engines[config.engine]()
