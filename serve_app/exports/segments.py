"""Reads the segments of a result: speakers and timed words, with text that is safe in every format."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.types import Span, Word, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NO_TEXT = {"Cc", "Cs"}
"""Unicode categories of control characters and lone surrogates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSegment(Span):
    """A segment of the result; the texts of its words are single lines."""

    speaker: str
    words: tuple[Word, ...]
    language: str = ""
    """A code, where the result tells each segment's."""

    @property
    def text(self) -> str:
        """Return the words in one line."""
        return joined(word.text for word in self.words)


def segments_of(result: Mapping[str, Any], names: Mapping[str, str]) -> list[ExportSegment]:
    """Return the segments that have words, in the result's order. `result` is the contract's object.

    A speaker is called by the name that `names` have for the id, else by the id.

    A word without times is interpolated between its neighbours; a segment without words gets those of its text.
    """
    return [found for segment in result["segments"] if (found := _segment_of(segment, names)).words]


def plain(text: str) -> str:
    """Return `text` in one line, with single spaces and without control characters."""
    return " ".join("".join(" " if unicodedata.category(char) in _NO_TEXT else char for char in text).split())


def _segment_of(segment: Mapping[str, Any], names: Mapping[str, str]) -> ExportSegment:
    speaker = segment["speaker"]["speaker_id"]
    words = segment.get("words") or [{"word": text} for text in segment["text"].split()]
    said = [word | {"word": text} for word in words if (text := plain(word["word"]))]
    return ExportSegment(
        start_s=segment["start_time"],
        end_s=segment["end_time"],
        speaker=plain(names[speaker]) if speaker in names else plain(speaker).replace(" ", "_"),
        language=plain(segment.get("language") or ""),
        words=tuple(_timed(said, Span(start_s=segment["start_time"], end_s=segment["end_time"]))),
    )


def _timed(words: Sequence[Mapping[str, Any]], span: Span) -> Iterator[Word]:
    known = {0: span.start_s, len(words): span.end_s}
    known |= {i: word["start"] for i, word in enumerate(words) if word.get("start") is not None}
    places = sorted(known)
    borders = np.interp(range(len(words) + 1), places, [known[place] for place in places])
    for i, word in enumerate(words):
        start_s, next_s = float(borders[i]), float(borders[i + 1])
        end_s = word.get("end")
        yield Word(start_s=start_s, end_s=next_s if end_s is None else max(start_s, end_s), text=word["word"])
