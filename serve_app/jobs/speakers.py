"""Who spoke each word: by overlap with the diarization's turns, then smoothed where a turn's edge cuts into a sentence.

Plain functions over words and turns; knows nothing of segments or how the turns were found.

The edges of turns are a tenth of a second or two off, and a sentence's first or last word is often no longer than that.
So within a sentence (to a full stop or a pause), a short run of words whose speaker's turn hardly reaches it, or hardly
reaches beyond it, goes to whoever says the words beside it. A short answer is a sentence of its own and stays.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING

from deployments.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.types import Turn, Word

ONLY_SPEAKER = 0
"""Who speaks where the diarization found nobody."""
SHORT_WORDS = 2
SHORT_S = 0.6
"""A run of more words, or of this length, is never doubted."""
COVERED_SHARE = 0.8
"""A speaker whose turns cover less of a short run hardly reaches it."""
BEYOND_S = 0.3
"""A speaker whose turns go on for less around a short run hardly reaches beyond it."""
PAUSE_S = 0.25
"""So long a silence between two words is a break."""
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")  # noqa: RUF001 - full-width ones are meant


class Turns:
    """Turns that can be asked by time without going through all of them: an hour has thousands, and as many words."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start_s)
        self._starts_s = [turn.start_s for turn in self._turns]
        self._longest = list(accumulate(self._turns, _later))
        """Of the first i + 1 turns, the one that ends last."""

    def over(self, span: Span) -> list[Turn]:
        """Those that share time with `span`, in order."""
        at = bisect_left(self._starts_s, span.end_s)
        found = []
        while at and self._longest[at - 1].end_s > span.start_s:
            at -= 1
            if self._turns[at].overlap_s(span):
                found.append(self._turns[at])
        return found[::-1]

    def nearest(self, span: Span) -> Turn | None:
        """The one nearest to `span`, where none shares time with it; the earlier one of two as near."""
        at = bisect_left(self._starts_s, span.end_s)
        beside = self._longest[at - 1 : at] if at else []
        beside += self._turns[at : at + 1]
        return min(beside, key=lambda turn: max(turn.start_s - span.end_s, span.start_s - turn.end_s), default=None)


def _later(first: Turn, second: Turn) -> Turn:
    return second if second.end_s > first.end_s else first


def speakers_of(words: Sequence[Word], turns: Turns) -> list[int]:
    """The speaker of each word of an utterance."""
    speakers = [speaker_of(word, turns) for word in words]
    answer: list[int] = []
    for sentence in sentences(words):
        answer += smoothed(words[sentence], speakers[sentence], turns)
    return answer


def speaker_of(word: Word, turns: Turns) -> int:
    """The speaker whose turns cover most of the word; where none does, the one whose turn is nearest."""
    covered: dict[int, float] = {}
    for turn in turns.over(word):
        covered[turn.speaker] = covered.get(turn.speaker, 0.0) + word.overlap_s(turn)
    if covered:
        return max(covered, key=lambda speaker: covered[speaker])
    nearest = turns.nearest(word)
    return ONLY_SPEAKER if nearest is None else nearest.speaker


def sentences(words: Sequence[Word]) -> list[slice]:
    """An utterance's `words`, cut where a sentence or a breath group ends."""
    cuts = [i for i in range(1, len(words)) if _breaks(words[i - 1], words[i])]
    return [slice(first, end) for first, end in pairwise([0, *cuts, len(words)])]


def _breaks(before: Word, after: Word) -> bool:
    return before.text.endswith(SENTENCE_ENDS) or after.start_s - before.end_s >= PAUSE_S


def smoothed(words: Sequence[Word], speakers: Sequence[int], turns: Turns) -> list[int]:
    """`speakers` of a sentence's `words`, with each doubtful run given to the nearest run that is not doubtful.

    Between two different ones, the speaker whose turns cover more of it gets it, else the nearer one.
    """
    runs = [list(group) for _, group in groupby(range(len(words)), key=lambda i: speakers[i])]
    sure = [not _doubtful(words, run, speakers[run[0]], turns) for run in runs]
    answer = list(speakers)
    for at, run in enumerate(runs):
        before = [other for other, known in zip(runs[:at], sure[:at], strict=True) if known][-1:]
        after = [other for other, known in zip(runs[at:], sure[at:], strict=True) if known][:1]
        if sure[at] or not before + after:
            continue
        best = max(before + after, key=lambda other: _claim(words, run, other, speakers[other[0]], turns))
        answer[run[0] : run[-1] + 1] = [speakers[best[0]]] * len(run)
    return answer


def _doubtful(words: Sequence[Word], run: Sequence[int], speaker: int, turns: Turns) -> bool:
    """Whether a run of indices into `words` is short and hardly held by `speaker`."""
    span = _span(words, run)
    own = [turn for turn in turns.over(span) if turn.speaker == speaker]
    beyond_s = sum(turn.duration_s - turn.overlap_s(span) for turn in own)
    short = len(run) <= SHORT_WORDS and span.duration_s < SHORT_S
    return short and (_covered_share(words, run, own) < COVERED_SHARE or beyond_s < BEYOND_S)


def _claim(
    words: Sequence[Word], run: Sequence[int], other: Sequence[int], speaker: int, turns: Turns
) -> tuple[float, float]:
    """How strong the claim of the speaker of the run `other` on `run` is: coverage, then nearness in time."""
    covering = [turn for turn in turns.over(_span(words, run)) if turn.speaker == speaker]
    first, second = (other, run) if other[0] < run[0] else (run, other)
    return _covered_share(words, run, covering), words[first[-1]].end_s - words[second[0]].start_s


def _covered_share(words: Sequence[Word], run: Sequence[int], turns: Sequence[Turn]) -> float:
    total_s = sum(words[i].duration_s for i in run)
    covered_s = sum(words[i].overlap_s(turn) for i in run for turn in turns)
    return covered_s / total_s if total_s > 0 else 0.0


def _span(words: Sequence[Word], run: Sequence[int]) -> Span:
    return Span(start_s=words[run[0]].start_s, end_s=words[run[-1]].end_s)
