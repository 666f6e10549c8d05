"""Finds the spoken language by a vote of several chunks, and divides a video into passages of one language each.

Plain functions over spans and probabilities; knows nothing of engines. Passages follow from the language probabilities
of short windows. A wrong change of language costs more than a missed one. So a passage that is not in the main language
needs a minimum of speech and a window that is sure of it, and the caller detects the language of the whole passage
again before it uses it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

from deployments.speech_detector.chunks import cut_chunks, parts, with_margins
from deployments.transcriber.protocol import BRIEF_S
from deployments.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VOTERS: Final = 5
"""Most chunks that vote; each costs a run of the encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """What a passage needs, above all one that is not in the main language."""

    near_s: float
    """Spans with a shorter pause between them are one window: people pause where they change the language."""
    window_s: float
    """Longest window."""
    sure: float
    """Least probability of its language in its surest window, 0-1."""
    main_sure: float
    """The same where it is in the main language."""
    least_s: float
    """Least speech."""
    confirmed: float
    """Least probability that the detection over the whole passage must give; below, its language is in doubt."""


AMONG_ALL: Final = Caution(near_s=0.3, window_s=BRIEF_S, sure=0.9, main_sure=0.0, least_s=2.0, confirmed=0.8)
"""Of 352 short windows of English none was `sure` of another language (docs/decisions.md)."""
AMONG_NAMED: Final = Caution(near_s=0.0, window_s=4.0, sure=0.8, main_sure=0.8, least_s=1.0, confirmed=0.5)
"""Where the job names the languages, the probabilities are shared out among these alone (docs/decisions.md)."""
MIXED: Final = 0.9
"""A window that gives its likeliest language less may hold two of them."""
PART_S: Final = 2.0
"""Longest part of such a window that is looked at again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage(Span):
    """A span of the video that is transcribed in `language`."""

    language: str


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive windows, `first` to before `end`, that are labelled `language`."""

    language: str
    first: int
    end: int


def voters(chunks: Sequence[Passage], count: int = VOTERS) -> list[Passage]:
    """Return the chunks that vote: at most `count`, the longest one of each of `count` equal parts of `chunks`."""
    parts = min(count, len(chunks))
    edges = [round(part * len(chunks) / parts) for part in range(parts + 1)] if parts else []
    return [max(chunks[start:end], key=lambda chunk: chunk.duration_s) for start, end in pairwise(edges)]


def vote(probabilities: Sequence[Mapping[str, float]], durations_s: Sequence[float]) -> tuple[str, float] | None:
    """Return the most probable language over all chunks and its probability; None without any probabilities.

    Each chunk votes for every language with that language's probability times the chunk's duration. Chunks without
    probabilities do not vote. Of equal languages the first one in the alphabet wins.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    voting_s = 0.0
    for chunk, duration_s in zip(probabilities, durations_s, strict=True):
        voting_s += duration_s if chunk else 0.0
        for language, probability in chunk.items():
            votes[language] += probability * duration_s
    if voting_s <= 0:
        return None
    winner = min(votes, key=lambda language: (-votes[language], language))
    return winner, votes[winner] / voting_s


def among(probabilities: Mapping[str, float], languages: Iterable[str]) -> dict[str, float]:
    """Return the probabilities of `languages` alone, so that they add up to 1; empty where all are 0."""
    kept = {language: probabilities.get(language, 0.0) for language in languages}
    total = sum(kept.values())
    return {language: probability / total for language, probability in kept.items()} if total > 0 else {}


def windows(speech: Iterable[Span], caution: Caution = AMONG_ALL) -> list[Span]:
    """Return the windows for language detection: spans of `speech`, near ones joined, long ones cut."""
    found: list[Span] = []
    for span in (part for whole in speech for part in parts(whole, caution.window_s)):
        if (
            found
            and span.start_s - found[-1].end_s <= caution.near_s
            and span.end_s - found[-1].start_s <= caution.window_s
        ):
            found[-1] = Span(start_s=found[-1].start_s, end_s=span.end_s)
        else:
            found.append(span)
    return found


def parts_of_mixed(spans: Sequence[Span], probabilities: Sequence[Mapping[str, float]]) -> list[tuple[int, list[Span]]]:
    """Return, by number, the windows that may hold two languages, each in equal parts of at most `PART_S`."""
    numbered = enumerate(zip(spans, probabilities, strict=True))
    return [
        (number, parts(window, PART_S))
        for number, (window, each) in numbered
        if window.duration_s > PART_S and 0 < max(each.values(), default=0.0) < MIXED
    ]


def passages(
    spans: Sequence[Span], probabilities: Sequence[Mapping[str, float]], caution: Caution = AMONG_ALL
) -> list[Passage]:
    """Return the passages of the windows at `spans`, in order; none where no window has probabilities.

    Only the main language (the likeliest over all windows) and languages of which a window is sure are considered.
    Windows between two firm passages go to the one whose language is more probable there.
    """
    main = vote(probabilities, [window.duration_s for window in spans])
    if main is None:
        return []
    languages = sorted(
        {main[0]} | {likeliest(each) for each in probabilities if max(each.values(), default=0) >= caution.sure}
    )
    labels = [max(languages, key=lambda language: each.get(language, 0.0)) for each in probabilities]
    firm = [run for run in _runs(labels) if _is_firm(run, main[0], spans, probabilities, caution)]
    labels = _filled(firm, spans, probabilities) if firm else [main[0]] * len(spans)
    return [
        Passage(start_s=spans[run.first].start_s, end_s=spans[run.end - 1].end_s, language=run.language)
        for run in _runs(labels)
    ]


def whole(speech: Sequence[Span], language: str) -> list[Passage]:
    """Return all of `speech` as one passage in `language`; none without speech."""
    return [Passage(start_s=speech[0].start_s, end_s=speech[-1].end_s, language=language)] if speech else []


def joined(found: Iterable[Passage]) -> list[Passage]:
    """Join neighbouring passages of the same language."""
    groups = [list(group) for _, group in groupby(found, key=lambda passage: passage.language)]
    return [Passage(start_s=g[0].start_s, end_s=g[-1].end_s, language=g[0].language) for g in groups]


def chunks_of(found: Iterable[Passage], speech: Sequence[Span], max_s: float) -> list[Passage]:
    """Return the recogniser's chunks, none longer than `max_s`, of the `speech` in each passage."""
    return [
        Passage(start_s=chunk.start_s, end_s=chunk.end_s, language=passage.language)
        for passage in found
        for chunk in cut_chunks(_inside(passage, speech), max_s)
    ]


def planned_chunks(found: Iterable[Passage], speech: Sequence[Span], max_s: float) -> dict[Passage, Passage]:
    """Return the recogniser's chunks with their margins, in order, by the chunks without."""
    chunks = chunks_of(found, speech, max_s)
    return dict(zip(chunks, with_margins(chunks, max_s), strict=True))


def speech_s(found: Iterable[Span], speech: Sequence[Span]) -> float:
    """Return the seconds of `speech` inside the spans `found`."""
    return sum(span.duration_s for passage in found for span in _inside(passage, speech))


def likeliest(probabilities: Mapping[str, float]) -> str:
    """Return the likeliest language; of equal ones the first in the alphabet."""
    return min(probabilities, key=lambda language: (-probabilities[language], language))


def _inside(passage: Span, speech: Iterable[Span]) -> list[Span]:
    cut = (Span(start_s=max(s.start_s, passage.start_s), end_s=min(s.end_s, passage.end_s)) for s in speech)
    return [span for span in cut if span.duration_s > 0]


def _runs(labels: Sequence[str]) -> list[_Run]:
    groups = [list(group) for _, group in groupby(range(len(labels)), key=labels.__getitem__)]
    return [_Run(labels[group[0]], group[0], group[-1] + 1) for group in groups]


def _is_firm(
    run: _Run, main: str, spans: Sequence[Span], probabilities: Sequence[Mapping[str, float]], caution: Caution
) -> bool:
    """Return whether a run is long enough and one of its windows is sure enough."""
    own = [each for each in probabilities[run.first : run.end] if each and likeliest(each) == run.language]
    needed = caution.main_sure if run.language == main else caution.sure
    sure = max((each[run.language] for each in own), default=0.0) >= needed
    return bool(own) and sure and sum(each.duration_s for each in spans[run.first : run.end]) >= caution.least_s


def _filled(firm: Sequence[_Run], spans: Sequence[Span], probabilities: Sequence[Mapping[str, float]]) -> list[str]:
    """Return a language per window: its firm run's, else that of the firm run before or after it."""
    labels = [firm[0].language] * firm[0].end
    for run in firm[1:]:
        between = range(len(labels), run.first)
        before, behind = (
            sum(probabilities[i].get(language, 0.0) * spans[i].duration_s for i in between)
            for language in (labels[-1], run.language)
        )
        labels += [run.language if behind > before else labels[-1]] * len(between)
        labels += [run.language] * (run.end - run.first)
    return labels + [labels[-1]] * (len(spans) - len(labels))
