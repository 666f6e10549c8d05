"""What every emotion analyser looks like, and the one place that names them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Emotion, Segment, Tracks

LABELS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""The words that an engine chooses from; a trained model may have others beside them."""


class EmotionEngine(Protocol):
    """Judges the mood of segments in three steps, so that items of several jobs can be judged at once.

    What an item is, and what is answered to it, is the engine's own.
    """

    def cut(self, audio: Audio, tracks: Tracks | None, segments: Sequence[Segment]) -> list[list[Any]]:
        """For each of one video's `segments` the items to judge it by; none where there is nothing to judge by.

        `audio` and `tracks` cover the whole video; `config.needs_tracks` says whether an engine can do without these.
        """
        ...

    def judge(self, items: Sequence[Any]) -> list[Any]:
        """An answer for each of `items`, of whatever jobs, in order; an exception in the place of one that fails.

        An item's answer depends on nothing but the item.
        """
        ...

    def mood(self, answers: Sequence[Any]) -> Emotion | None:
        """A segment's mood by the answers to its items; None where there is nothing to judge by."""
        ...

    def weight_s(self, item: Any) -> float:
        """Seconds of sound that `item` costs to judge."""
        ...

    def check(self) -> None:
        """Raise where the engine cannot work any more."""
        ...


def analyze(
    engine: EmotionEngine, audio: Audio, tracks: Tracks | None, segments: Sequence[Segment]
) -> list[Emotion | None]:
    """The mood of each of one video's `segments`, in order. Raises what kept an item from being judged."""
    cut = engine.cut(audio, tracks, segments)
    answers = engine.judge([item for items in cut for item in items])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return moods(engine, cut, answers)


def moods(engine: EmotionEngine, cut: Sequence[Sequence[Any]], answers: Sequence[Any]) -> list[Emotion | None]:
    """A mood per segment, from the answers to all items that were `cut`, in order."""
    following = iter(answers)
    return [engine.mood([next(following) for _ in items]) for items in cut]
