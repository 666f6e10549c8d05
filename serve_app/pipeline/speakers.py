"""Who spoke each word: the cheapest way through the words, where leaving the turns costs and changing speakers costs.

Plain functions over words and turns; knows nothing of segments or how the turns were found.

The edges of turns, and those of words, are a tenth of a second or two off, and a sentence's first or last word is often
no longer than that. So a word that its speaker's turns do not cover costs its time, and a change of speakers costs as
much as so many uncovered seconds: little where a sentence ends or a pause lies, much within a sentence. The cheapest
way is found by dynamic programming (Viterbi, "Error bounds for convolutional codes", 1967), in linear time.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from deployments.sentence_ends import ends_clause, ends_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.types import Span, Turn, Word

ONLY_SPEAKER = 0
"""Who speaks where the diarization found nobody."""
WITHIN_SENTENCE_S = 0.7
AT_CLAUSE_S = 0.5
AT_SENTENCE_S = 0.02
"""What a change of speakers costs, in seconds of words far from their speaker's turns: within a sentence, behind a
comma, and at a sentence's end."""
PAUSE_S = 0.5
"""In a pause of this length within a sentence a change costs as at its end; in a shorter one, in between."""
EDGE_S = 0.2
"""So far are the edges of turns and words off: at this distance from a turn a word costs half its time."""
REACH_S = 3.0
"""Turns that are further away say nothing about a word."""
NESTED_COST = 0.3
"""Share of a word's time that it costs in a turn within which somebody else has one there: who speaks into another's
turn is more likely to be the one who was heard."""
LONGEST_WORD_S = 1.0
"""A word counts for no more: longer ones are mostly pause."""
SAMPLES = 5
"""A word is looked at in the middles of so many equal parts."""


class Turns:
    """Turns that can be asked by time without going through all of them: an hour has thousands, and as many words."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start_s)
        self._starts_s = [turn.start_s for turn in self._turns]
        self._longest = list(accumulate(self._turns, _later))
        """Of the first i + 1 turns, the one that ends last."""

    @property
    def speakers(self) -> list[int]:
        """All that have a turn, or the only speaker where there is none."""
        return sorted({turn.speaker for turn in self._turns}) or [ONLY_SPEAKER]

    def near(self, span: Span, within_s: float) -> list[Turn]:
        """Those that are less than `within_s` away from `span`, in order."""
        at = bisect_left(self._starts_s, span.end_s + within_s)
        found = []
        while at and self._longest[at - 1].end_s > span.start_s - within_s:
            at -= 1
            if self._turns[at].end_s > span.start_s - within_s:
                found.append(self._turns[at])
        return found[::-1]


def _later(first: Turn, second: Turn) -> Turn:
    return second if second.end_s > first.end_s else first


def assign_word_speakers(words: Sequence[Word], turns: Turns) -> list[int]:
    """The speaker of each of `words`, which are in order of time."""
    speakers = turns.speakers
    totals = [0.0] * len(speakers)
    came_from: list[list[int]] = []
    for i, word in enumerate(words):
        if i:
            totals, came = changed(totals, change_cost_s(words[i - 1], word))
            came_from.append(came)
        costs_s = costs_of(word, turns)
        totals = [total + costs_s.get(who, duration_s(word)) for total, who in zip(totals, speakers, strict=True)]
    at = totals.index(min(totals))
    way = [at]
    for came in reversed(came_from):
        at = came[at]
        way.append(at)
    return [speakers[at] for at in reversed(way[: len(words)])]


def changed(totals: Sequence[float], change_s: float) -> tuple[list[float], list[int]]:
    """The cheapest total of each speaker for the next word, and whose total it continues."""
    cheapest = totals.index(min(totals))
    by_change = totals[cheapest] + change_s
    came = [cheapest if by_change < total else at for at, total in enumerate(totals)]
    return [min(total, by_change) for total in totals], came


def change_cost_s(before: Word, after: Word) -> float:
    """What it costs that another one speaks from `after` on."""
    if ends_sentence(before, after):
        return AT_SENTENCE_S
    most_s = AT_CLAUSE_S if ends_clause(before) else WITHIN_SENTENCE_S
    pause = min(1.0, max(0.0, after.start_s - before.end_s) / PAUSE_S)
    return most_s + (AT_SENTENCE_S - most_s) * pause


def costs_of(word: Word, turns: Turns) -> dict[int, float]:
    """What `word` costs each speaker with a turn in reach, in seconds: from 0 under their turn up to its length."""
    near = turns.near(word, REACH_S)
    step_s = word.duration_s / SAMPLES
    moments_s = [word.start_s + (i + 0.5) * step_s for i in range(SAMPLES)]
    costs: dict[int, float] = {}
    for speaker in {turn.speaker for turn in near}:
        shares = [share_outside(at_s, speaker, near) for at_s in moments_s]
        costs[speaker] = sum(shares) / SAMPLES * duration_s(word)
    return costs


def share_outside(at_s: float, speaker: int, near: Sequence[Turn]) -> float:
    """How far a moment is from `speaker`'s turns, 0-1: 0 within one, unless another's lies within that."""
    turns = (turn for turn in near if turn.speaker == speaker)
    own = min(turns, key=lambda turn: (_away_s(turn, at_s), turn.duration_s))
    away_s = _away_s(own, at_s)
    if away_s > 0:
        return away_s / (away_s + EDGE_S)
    nested = any(
        own.start_s <= turn.start_s <= at_s <= turn.end_s <= own.end_s for turn in near if turn.speaker != speaker
    )
    return NESTED_COST if nested else 0.0


def _away_s(turn: Turn, at_s: float) -> float:
    return max(turn.start_s - at_s, at_s - turn.end_s, 0.0)


def duration_s(word: Word) -> float:
    """How much a word counts."""
    return min(word.duration_s, LONGEST_WORD_S)
