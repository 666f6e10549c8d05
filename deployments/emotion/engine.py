"""What every emotion analyser looks like, and the one place that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.emotion.config import EmotionConfig
    from deployments.types import Audio, Emotion, Segment, Tracks

LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The words that an engine chooses from; a trained model may have others beside them."""


class EmotionEngine(Protocol):
    """Judges the mood of segments."""

    def analyze(self, audio: Audio, tracks: Tracks, segments: Sequence[Segment]) -> list[Emotion | None]:
        """One judgement per segment, in order; None where there is nothing to judge by.

        `audio` and `tracks` cover the whole video; `segments` are one of the `parts` of the video's.
        """
        ...

    def parts(self, segments: Sequence[Segment]) -> list[Sequence[Segment]]:
        """All of a video's `segments` in the parts that one call of `analyze` may judge apart from the rest.

        An engine that knows a speaker's norm only from all segments makes one part; else a part is seconds of work.
        """
        ...

    def check(self) -> None:
        """Raise where the engine cannot work any more."""
        ...


def create(config: EmotionConfig) -> EmotionEngine:
    """Load the engine that `config` names.

    Raises:
        ModelLoadError: its model is missing or broken.
    """
    if config.engine == "wav2vec2":
        from deployments.emotion.classifier import ClassifierEngine

        return ClassifierEngine(config)
    from deployments.emotion.prosodic_lexical import ProsodicLexicalEngine

    return ProsodicLexicalEngine()
