"""Assigns a speaker to each word: the sequence of speakers that costs least (Viterbi).

The edges of turns and words are off by a tenth of a second or two, and the first or last word of a sentence is often
no longer than that. So a word outside its speaker's turns costs its length in seconds, and a change of speakers costs
some seconds, too: few at the end of a sentence or at a pause, more within a sentence. The cheapest sequence is found in
linear time (Viterbi, "Error bounds for convolutional codes", 1967).
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from deployments.sentence_ends import ends_clause, ends_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.types import Span, Turn, Word

ONLY_SPEAKER = 0
"""The speaker of all words where the diarization found no turn."""
WITHIN_SENTENCE_S = 0.7
AT_CLAUSE_S = 0.5
AT_SENTENCE_S = 0.02
"""Cost of a change of speakers, in seconds of words outside their speaker's turns: within a sentence, after a comma,
and at the end of a sentence."""
PAUSE_S = 0.5
"""At a pause of this length within a sentence a change costs as much as at its end; at a shorter one, in between."""
EDGE_S = 0.2
"""At this distance from a turn a word costs half its length: the edges of turns and words are off by about this."""
REACH_S = 3.0
"""Turns further away from a word than this are not considered."""
NESTED_COST = 0.3
"""Share of its length that a word costs under a turn that holds a turn of another speaker there: who speaks into
another's turn is more likely to be the speaker."""
LONGEST_WORD_S = 1.0
"""The most that a word counts: longer words are mostly pause."""
SAMPLES = 5
"""Moments of a word at which its distance from the turns is taken: the middles of equal parts."""


class Turns:
    """Turns by time, found without a search of all: an hour has thousands, and even more words."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start_s)
        self._starts_s = [turn.start_s for turn in self._turns]
        self._longest = list(accumulate(self._turns, lambda *two: max(two, key=attrgetter("end_s"))))
        """At i: of the first i + 1 turns, the one that ends last."""

    @property
    def speakers(self) -> list[int]:
        """All speakers with a turn; `ONLY_SPEAKER` where there is no turn."""
        return sorted({turn.speaker for turn in self._turns}) or [ONLY_SPEAKER]

    def near(self, span: Span, within_s: float) -> list[Turn]:
        """Return the turns less than `within_s` away from `span`, in order of time."""
        at = bisect_left(self._starts_s, span.end_s + within_s)
        found = []
        while at and self._longest[at - 1].end_s > span.start_s - within_s:
            at -= 1
            if self._turns[at].end_s > span.start_s - within_s:
                found.append(self._turns[at])
        return found[::-1]


def assign_word_speakers(words: Sequence[Word], turns: Turns) -> list[int]:
    """Return the speaker of each of `words`, which are in order of time."""
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
    """Return for each speaker the least total up to the next word, and the speaker whose total it continues."""
    cheapest = totals.index(min(totals))
    by_change = totals[cheapest] + change_s
    came = [cheapest if by_change < total else at for at, total in enumerate(totals)]
    return [min(total, by_change) for total in totals], came


def change_cost_s(before: Word, after: Word) -> float:
    """Return the cost, in seconds, of a change of speakers between two words."""
    if ends_sentence(before, after):
        return AT_SENTENCE_S
    most_s = AT_CLAUSE_S if ends_clause(before) else WITHIN_SENTENCE_S
    pause = min(1.0, max(0.0, after.start_s - before.end_s) / PAUSE_S)
    return most_s + (AT_SENTENCE_S - most_s) * pause


def costs_of(word: Word, turns: Turns) -> dict[int, float]:
    """Return what `word` costs each speaker in reach, in seconds: from 0 under their turn to its length."""
    near = turns.near(word, REACH_S)
    step_s = word.duration_s / SAMPLES
    moments_s = [word.start_s + (i + 0.5) * step_s for i in range(SAMPLES)]
    return {
        speaker: sum(share_outside(at_s, speaker, near) for at_s in moments_s) / SAMPLES * duration_s(word)
        for speaker in {turn.speaker for turn in near}
    }


def share_outside(at_s: float, speaker: int, near: Sequence[Turn]) -> float:
    """Return how far a moment is outside `speaker`'s turns, 0-1: 0 inside one, unless that holds another's turn."""
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
    """Return how much a word counts, in seconds."""
    return min(word.duration_s, LONGEST_WORD_S)
