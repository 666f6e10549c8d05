"""Where which language is spoken in a video: stretches of one language each, from what short windows sound like.

Plain functions over spans and probabilities; knows nothing of how a window was heard.

A wrong change of language costs more than none: a passage in another language than the video's needs windows that are
sure of it and some length, and the caller hears it once more as a whole (`SURE`) before it believes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from deployments.speech_detector.chunks import cut_chunks, parts
from deployments.transcriber.language import vote
from deployments.types import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WINDOW_S: Final = 7.0
"""So much is heard at a time: the longest span that the speech detector gives."""
NEAR_S: Final = 0.3
"""Spans with a shorter pause between them are heard together: people pause where they change the language."""
SURE: Final = 0.9
"""Of 317 windows of English, none was taken for another language with this probability: docs/decisions.md."""
LEAST_S: Final = 2.0
"""A passage with less speech is no passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage(Span):
    """A stretch of time that is to be heard in one language."""

    language: str


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive windows, `first` to `end`, in which `language` is the likeliest."""

    language: str
    first: int
    end: int


def windows(spans: Sequence[Span]) -> list[Span]:
    """What to listen to: the detector's `spans`, near ones together, none longer than `WINDOW_S`."""
    found: list[Span] = []
    for span in (part for whole in spans for part in parts(whole, WINDOW_S)):
        if found and span.start_s - found[-1].end_s <= NEAR_S and span.end_s - found[-1].start_s <= WINDOW_S:
            found[-1] = Span(start_s=found[-1].start_s, end_s=span.end_s)
        else:
            found.append(span)
    return found


def passages(heard: Sequence[Span], probabilities: Sequence[Mapping[str, float]]) -> list[Passage]:
    """The stretches of one language each that windows make, in order; none where no window knows a language.

    The video's language is the likeliest over all windows. Beside it only languages count of which a window is sure;
    what lies between two passages and is neither long nor sure goes to the one that it sounds more like.
    """
    main = vote(probabilities, [window.duration_s for window in heard])
    if main is None:
        return []
    spoken = {main[0]} | {_likeliest(each) for each in probabilities if max(each.values(), default=0.0) >= SURE}
    labels = [max(sorted(spoken), key=lambda language: each.get(language, 0.0)) for each in probabilities]
    runs = _runs(labels)
    firm = [run for run in runs if _is_firm(run, main[0], heard, probabilities)] or [_Run(main[0], 0, len(heard))]
    return [
        Passage(start_s=heard[run.first].start_s, end_s=heard[run.end - 1].end_s, language=run.language)
        for run in _runs(_filled(firm, heard, probabilities))
    ]


def chunks_of(passage: Span, spans: Sequence[Span], max_s: float) -> list[Span]:
    """The recogniser's chunks of the `spans` of speech in `passage`, none longer than `max_s`."""
    inside = (Span(start_s=max(s.start_s, passage.start_s), end_s=min(s.end_s, passage.end_s)) for s in spans)
    return cut_chunks([span for span in inside if span.duration_s > 0], max_s)


def joined(found: Sequence[Passage]) -> list[Passage]:
    """`found` with neighbours of the same language made one."""
    groups = [list(group) for _, group in groupby(found, key=lambda passage: passage.language)]
    return [Passage(start_s=g[0].start_s, end_s=g[-1].end_s, language=g[0].language) for g in groups]


def _likeliest(probabilities: Mapping[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def _runs(labels: Sequence[str]) -> list[_Run]:
    groups = [list(group) for _, group in groupby(range(len(labels)), key=labels.__getitem__)]
    return [_Run(labels[group[0]], group[0], group[-1] + 1) for group in groups]


def _is_firm(run: _Run, main: str, heard: Sequence[Span], probabilities: Sequence[Mapping[str, float]]) -> bool:
    """Whether a run is long enough, and sure enough where it is not in the video's language."""
    sure = run.language == main or any(each.get(run.language, 0.0) >= SURE for each in probabilities[run.first : run.end])
    return sure and sum(window.duration_s for window in heard[run.first : run.end]) >= LEAST_S


def _filled(firm: Sequence[_Run], heard: Sequence[Span], probabilities: Sequence[Mapping[str, float]]) -> list[str]:
    """A language for each window: that of its firm run, else that of the run before or behind it."""
    labels = [firm[0].language] * firm[0].end
    for run in firm[1:]:
        between = range(len(labels), run.first)
        languages = (labels[-1], run.language)
        likeness = [sum(probabilities[i].get(each, 0.0) * heard[i].duration_s for i in between) for each in languages]
        labels += [languages[likeness[1] > likeness[0]]] * len(between) + [run.language] * (run.end - run.first)
    return labels + [labels[-1]] * (len(heard) - len(labels))
