"""Cuts words into segments as a person would write them down: one speaker, whole sentences."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise, zip_longest
from typing import TYPE_CHECKING

from deployments.sentence_ends import ends_clause, ends_sentence
from deployments.types import Segment
from serve_app.pipeline.speakers import Turns, assign_word_speakers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deployments.types import Turn, Utterance, Word

PAUSE_S = 0.8
"""A pause of this length ends a segment, even within a sentence, as in subtitles (serve_app/exports/cues.py)."""
SHORT_S = 1.0
"""A shorter sentence shares a segment with its speaker's sentence before or after it: `Yes. The red house.`"""
CLOSE_S = 0.4
"""The longest pause between two sentences that share a segment."""
LONGEST_S = 15.0
"""A longer sentence, or speech without full stops, is cut at its longest pause."""
CLAUSE_BONUS_S = 0.3
"""Added to the pause after a comma where the longest pause is looked for."""

Words = tuple["Word", ...]


def segments_of(utterances: Iterable[Utterance], turns: Sequence[Turn], languages: Sequence[str] = ()) -> list[Segment]:
    """Return segments in order of time, with the speakers of `turns`, numbered in order of their first speech.

    `languages`: of each utterance, where a change of language is to end a segment.
    """
    pairs = sorted(zip_longest(utterances, languages), key=lambda pair: pair[0].start_s)
    words = [word for each, _ in pairs for word in each.words]
    spoken_in = [language for each, language in pairs for _ in each.words]
    spoken = zip(assign_word_speakers(words, Turns(turns)), spoken_in, words, strict=True)
    segments = [
        _segment(speaker, part)
        for (speaker, _), run in groupby(spoken, key=lambda each: each[:2])
        for part in parts_of([word for *_, word in run])
    ]
    order = list(dict.fromkeys(each.speaker for each in segments))
    return [replace(each, speaker=order.index(each.speaker)) for each in segments]


def parts_of(words: Sequence[Word]) -> list[Words]:
    """Return one speaker's `words`, cut at sentence ends and pauses, short sentences joined, long ones cut again."""
    return [part for sentence in _joined(_cut(words, _ends)) for part in _shortened(sentence)]


def _ends(before: Word, after: Word) -> bool:
    return after.start_s - before.end_s >= PAUSE_S or ends_sentence(before, after)


def _cut(words: Sequence[Word], at: Callable[[Word, Word], bool]) -> list[Words]:
    cuts = [i for i, (before, after) in enumerate(pairwise(words), 1) if at(before, after)]
    return [tuple(words[first:end]) for first, end in pairwise([0, *cuts, len(words)])]


def _joined(sentences: Sequence[Words]) -> list[Words]:
    """Join sentences shorter than `SHORT_S` to a neighbour that is close."""
    joined: list[Words] = []
    for sentence in sentences:
        short = joined and min(_length_s(joined[-1]), _length_s(sentence)) < SHORT_S
        if short and sentence[0].start_s - joined[-1][-1].end_s <= CLOSE_S:
            joined[-1] += sentence
        else:
            joined.append(sentence)
    return joined


def _shortened(words: Words) -> list[Words]:
    """Cut `words` at the longest pause of their middle half until no part is longer than `LONGEST_S`."""
    if _length_s(words) <= LONGEST_S or len(words) == 1:
        return [words]
    quarter = len(words) // 4
    inner = range(max(1, quarter), max(2, len(words) - quarter))
    cut = max(inner, key=lambda i: _break_s(words[i - 1], words[i]))
    return _shortened(words[:cut]) + _shortened(words[cut:])


def _break_s(before: Word, after: Word) -> float:
    return after.start_s - before.end_s + CLAUSE_BONUS_S * ends_clause(before)


def _length_s(words: Words) -> float:
    return words[-1].end_s - words[0].start_s


def _segment(speaker: int, words: Words) -> Segment:
    known = [word.confidence for word in words if word.confidence is not None]
    return Segment(
        start_s=words[0].start_s,
        end_s=max(word.end_s for word in words),
        speaker=speaker,
        words=words,
        confidence=sum(known) / len(known) if known else None,
    )
