"""What every emotion engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Emotion, Segment, Tracks

LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The labels of an emotion; a trained model may have others beside them."""


class EmotionEngine(Protocol):
    """Finds the emotion of segments in three steps, so that items of several jobs can be computed in one batch.

    Each engine has its own type of items and answers.
    """

    def cut(self, audio: Audio, tracks: Tracks | None, segments: Sequence[Segment]) -> list[list[Any]]:
        """Return the items for each of one video's `segments`; none where there is nothing to classify.

        `audio` and `tracks` cover the whole video. `tracks` may be None unless `config.needs_tracks`.
        """
        ...

    def judge(self, items: Sequence[Any]) -> list[Any]:
        """Return an answer per item, in order; an exception takes the place of an item that failed.

        Items may be of several jobs. An answer depends only on its item.
        """
        ...

    def mood(self, answers: Sequence[Any]) -> Emotion | None:
        """Return a segment's emotion from the answers for its items; None where there are none."""
        ...

    def weight_s(self, item: Any) -> float:
        """Return the cost of `item` in seconds of audio."""
        ...

    def check(self) -> None:
        """Raise where the engine cannot compute any more."""
        ...


def analyze(
    engine: EmotionEngine, audio: Audio, tracks: Tracks | None, segments: Sequence[Segment]
) -> list[Emotion | None]:
    """Return the emotion of each of one video's `segments`, in order. Raises the first error of an item."""
    cut = engine.cut(audio, tracks, segments)
    answers = engine.judge([item for items in cut for item in items])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return moods(engine, cut, answers)


def moods(engine: EmotionEngine, cut: Sequence[Sequence[Any]], answers: Sequence[Any]) -> list[Emotion | None]:
    """Return an emotion per segment from the `answers` for all items of `cut`, in order."""
    following = iter(answers)
    return [engine.mood([next(following) for _ in items]) for items in cut]
