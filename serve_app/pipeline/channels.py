"""Channels that are kept apart, one speaker in each: where they lie in the audio, and when in the video that is.

The audio has them one after the other, so that the stages know nothing of them. Knows nothing of stages.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from deployments.types import CHANNEL_GAP_S, Segment, Span, Utterance, Word
from serve_app.pipeline.segments import segments_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.types import Emotion, WordProsody

Part = TypeVar("Part", bound=Span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """`count` channels of `each_s` in a row, the silence behind each included."""

    count: int
    each_s: float

    def cut(self, spans: Iterable[Part]) -> list[Part]:
        """Return `spans` cut where a channel begins or ends; what lies in the silence between is left out."""
        parts = (
            replace(span, start_s=max(span.start_s, channel.start_s), end_s=min(span.end_s, channel.end_s))
            for span in spans
            for channel in self._spans
            if span.overlap_s(channel) > 0
        )
        return sorted(parts, key=lambda part: part.start_s)

    def segments_of(self, utterances: Sequence[Utterance], languages: Sequence[str] = ()) -> list[Segment]:
        """Return the segments of each channel, in order of channels; its number, from 0, is the speaker's.

        `languages`: see `segments.segments_of`.
        """
        said: defaultdict[int, list[int]] = defaultdict(list)
        for i, utterance in enumerate(utterances):
            said[self._number_of(utterance)].append(i)
        return [
            replace(segment, speaker=number)
            for number, those in sorted(said.items())
            for segment in segments_of([utterances[i] for i in those], (), [languages[i] for i in those if languages])
        ]

    def back_in_place(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return `segments` at their times in their channels, each of which begins at 0 s."""
        length_s = self.each_s - CHANNEL_GAP_S
        return [_within(moved(each, -each.speaker * self.each_s), length_s) for each in segments]

    @property
    def sound_s(self) -> float:
        """Seconds of all channels, without the silence between."""
        return self.count * (self.each_s - CHANNEL_GAP_S)

    @property
    def _spans(self) -> list[Span]:
        starts_s = [number * self.each_s for number in range(self.count)]
        return [Span(start_s=start_s, end_s=start_s + self.each_s - CHANNEL_GAP_S) for start_s in starts_s]

    def _number_of(self, span: Span) -> int:
        return min(self.count - 1, int((span.start_s + span.end_s) / 2 / self.each_s))


def on_the_videos_clock(
    segments: list[Segment],
    prosody: Sequence[Sequence[WordProsody]],
    emotions: Sequence[Emotion | None] | None,
    channels: Channels | None,
    start_s: float,
) -> tuple[list[Segment], Sequence[Sequence[WordProsody]], Sequence[Emotion | None] | None]:
    """Move what was found in the audio to where it is in the video, and sort it by time.

    The audio begins `start_s` after the video, and has `channels` one after the other.
    """
    if channels:
        segments = channels.back_in_place(segments)
    elif not start_s:
        return segments, prosody, emotions
    segments = [moved(segment, start_s) for segment in segments]
    order = sorted(range(len(segments)), key=lambda number: segments[number].start_s)
    return (
        [segments[number] for number in order],
        [prosody[number] for number in order],
        None if emotions is None else [emotions[number] for number in order],
    )


def moved(segment: Segment, offset_s: float) -> Segment:
    """Return `segment` with its words, `offset_s` later."""
    words = tuple(replace(word, start_s=word.start_s + offset_s, end_s=word.end_s + offset_s) for word in segment.words)
    return replace(segment, start_s=segment.start_s + offset_s, end_s=segment.end_s + offset_s, words=words)


def _within(segment: Segment, length_s: float) -> Segment:
    """Return `segment` with no time outside of 0 to `length_s`: chunks reach into the pauses beside them."""

    def inside(span: Part) -> Part:
        start_s, end_s = (min(max(edge_s, 0.0), length_s) for edge_s in (span.start_s, span.end_s))
        return replace(span, start_s=start_s, end_s=end_s)

    words: tuple[Word, ...] = tuple(map(inside, segment.words))
    return replace(inside(segment), words=words)
