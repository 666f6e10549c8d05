"""Scores who said what: the words of a result against lines of a reference, each with its speaker and its times.

Knows nothing of engines. A reference has times for lines, not for words: a word's time is its share of its line, by
letters.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from deployments.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deployments.types import Segment, Word
    from serve_app.cli.render import ReferenceLine

COLLAR_S = 0.25
"""So far may a word reach beyond its line and still be inside, as is usual for diarization."""
SAME_MOMENT_S = 1.0
"""Equal words that the alignment leaves over are one word where their middles are no further apart: people who speak at
once have no common order."""
OVERLAPPED_SHARE = 0.5
"""A word is overlapped where others' lines cover so much of it."""
_NO_LETTER = re.compile(r"[^\w']+")
_SENTENCE = re.compile(r"[.?!]\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidWord(Span):
    """A word of the reference. `line` is its line's time, `sentence` the number of its sentence in the reference."""

    text: str
    speaker: str
    line: Span
    sentence: int
    overlapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardWord(Span):
    """A word of the result, and the number of its segment."""

    text: str
    speaker: int
    segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Counts of words. Scores of several recordings add up with `+`."""

    said: int = 0
    errors: int = 0
    """Substitutions, deletions and insertions, whoever spoke: WER's."""
    errors_by_speaker: int = 0
    """The same with each speaker's words by themselves, speakers matched as is best: cpWER's."""
    alone: int = 0
    """Words that were recognised rightly and that nobody speaks over; the next two count among them."""
    at_speaker: int = 0
    """Given to their speaker, speakers matched as is best."""
    inside_line: int = 0
    """Wholly inside their line, `COLLAR_S` left and right."""
    overlapped: int = 0
    """Words that were recognised rightly though somebody speaks over them."""
    overlapped_at_speaker: int = 0
    sentences: int = 0
    """Sentences of the reference with two or more words among `alone`."""
    torn: int = 0
    """Sentences whose words got several speakers."""
    segments: int = 0
    mixed: int = 0
    """Segments with words of several speakers."""

    def __add__(self, other: Attribution) -> Attribution:
        return Attribution(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def score(lines: Sequence[ReferenceLine], segments: Sequence[Segment]) -> Attribution:
    """How `segments` differ from the reference."""
    said, heard = said_words(lines), heard_words(segments)
    found = pairs(said, heard)
    names = matched(Counter((true.speaker, word.speaker) for true, word in found))
    alone = [(true, word) for true, word in found if not true.overlapped]
    over = [(true, word) for true, word in found if true.overlapped]
    told = speakers_by(((true.sentence, word.speaker) for true, word in alone), at_least=2)
    given = speakers_by((word.segment, names.get(true.speaker, -1)) for true, word in alone)
    return Attribution(
        said=len(said),
        errors=Levenshtein.distance([word.text for word in said], [word.text for word in heard]),
        errors_by_speaker=errors_by_speaker(said, heard),
        alone=len(alone),
        at_speaker=sum(names.get(true.speaker) == word.speaker for true, word in alone),
        inside_line=sum(inside(word, true.line) for true, word in alone),
        overlapped=len(over),
        overlapped_at_speaker=sum(names.get(true.speaker) == word.speaker for true, word in over),
        sentences=len(told),
        torn=sum(len(speakers) > 1 for speakers in told),
        segments=len(segments),
        mixed=sum(len(speakers) > 1 for speakers in given),
    )


def said_words(lines: Iterable[ReferenceLine]) -> list[SaidWord]:
    """The words of the reference in order of time."""
    ordered = sorted(lines, key=lambda line: line.start_s)
    words: list[SaidWord] = []
    sentence = 0
    for line in ordered:
        span = Span(start_s=line.start_s, end_s=line.end_s)
        others = [each for each in ordered if each.speaker != line.speaker]
        texts = [(text, i) for i, part in enumerate(_SENTENCE.split(line.text), sentence) for text in plain(part)]
        shares = list(accumulate((len(text) + 1 for text, _ in texts), initial=0))
        edges_s = [line.start_s + span.duration_s * share / shares[-1] for share in shares] if texts else []
        for (text, number), (start_s, end_s) in zip(texts, pairwise(edges_s), strict=True):
            word = Span(start_s=start_s, end_s=end_s)
            covered_s = sum(word.overlap_s(Span(start_s=other.start_s, end_s=other.end_s)) for other in others)
            overlapped = covered_s >= OVERLAPPED_SHARE * word.duration_s
            words.append(
                SaidWord(
                    start_s=start_s,
                    end_s=end_s,
                    text=text,
                    speaker=line.speaker,
                    line=span,
                    sentence=number,
                    overlapped=overlapped,
                )
            )
        sentence = max([sentence, *(number + 1 for _, number in texts)])
    return sorted(words, key=lambda word: word.start_s)


def heard_words(segments: Iterable[Segment]) -> list[HeardWord]:
    """The words of the result in its order."""
    return [
        HeardWord(start_s=word.start_s, end_s=word.end_s, text=text, speaker=segment.speaker, segment=number)
        for number, segment in enumerate(segments)
        for word in segment.words
        for text in plain(word.text)
    ]


def plain(text: str) -> list[str]:
    """The words of `text` in lower case, letters, digits and apostrophes only."""
    return [word for part in text.split() if (word := _NO_LETTER.sub("", part.lower()))]


def pairs(said: Sequence[SaidWord], heard: Sequence[HeardWord]) -> list[tuple[SaidWord, HeardWord]]:
    """The words that were recognised rightly: equal in the alignment, else left over, equal and at the same moment."""
    found = Levenshtein.opcodes([word.text for word in said], [word.text for word in heard])
    equal = [each for each in found if each.tag == "equal"]
    matched = {
        i: j
        for each in equal
        for i, j in zip(range(each.src_start, each.src_end), range(each.dest_start, each.dest_end), strict=True)
    }
    free = sorted(set(range(len(heard))) - set(matched.values()))
    for i in sorted(set(range(len(said))) - set(matched)):
        near = [j for j in free if said[i].text == heard[j].text and apart_s(said[i], heard[j]) <= SAME_MOMENT_S]
        if near:
            matched[i] = min(near, key=lambda j: apart_s(said[i], heard[j]))
            free.remove(matched[i])
    return [(said[i], heard[j]) for i, j in sorted(matched.items())]


def apart_s(first: Span, second: Span) -> float:
    """Between the middles of both."""
    return abs(first.start_s + first.end_s - second.start_s - second.end_s) / 2


def matched(counts: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """The speaker of the result for each speaker of the reference, so that most words agree."""
    names, numbers = sorted({name for name, _ in counts}), sorted({number for _, number in counts})
    table = np.array([[counts.get((name, number), 0) for number in numbers] for name in names])
    table = table.reshape(len(names), len(numbers))
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {names[row]: numbers[column] for row, column in zip(rows, columns, strict=True)}


def inside(word: Word | HeardWord, line: Span) -> bool:
    """Whether `word` reaches no further than the collar beyond `line`."""
    return word.start_s >= line.start_s - COLLAR_S and word.end_s <= line.end_s + COLLAR_S


def speakers_by(told: Iterable[tuple[int, object]], *, at_least: int = 1) -> list[set[object]]:
    """The speakers of each number (of a sentence, a segment) that comes `at_least` so often."""
    groups: dict[int, list[object]] = {}
    for number, speaker in told:
        groups.setdefault(number, []).append(speaker)
    return [set(speakers) for speakers in groups.values() if len(speakers) >= at_least]


def errors_by_speaker(said: Sequence[SaidWord], heard: Sequence[HeardWord]) -> int:
    """Word errors of the best matching of speakers; one that has no partner is all wrong.

    Method: concatenated minimum-permutation WER, Watanabe et al., "CHiME-6 challenge", 2020.
    """
    true = [[word.text for word in said if word.speaker == name] for name in sorted({word.speaker for word in said})]
    told = [[word.text for word in heard if word.speaker == name] for name in sorted({word.speaker for word in heard})]
    size = max(len(true), len(told))
    true += [[]] * (size - len(true))
    told += [[]] * (size - len(told))
    table = np.array([[Levenshtein.distance(a, b) for b in told] for a in true]).reshape(size, size)
    return int(table[linear_sum_assignment(table)].sum())
