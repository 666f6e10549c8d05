from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from deployments.types import Span
from deployments.warnings import ResultWarning, WarningCode
from serve_app.pipeline.languages import LanguagePlan, language_warnings, plan_languages

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEECH = [Span(start_s=at, end_s=at + 4) for at in range(0, 60, 5)]
"""Twelve sentences of 4 s."""


class Ear:
    """Hears what it is told: at a glance, and with care; remembers what it was asked."""

    def __init__(self, brief: dict[str, tuple[float, float]], careful: dict[str, float] | None = None) -> None:
        self._brief = brief
        self._careful = careful
        self.asked: list[tuple[Sequence[Span], bool]] = []

    async def __call__(self, spans: Sequence[Span], *, brief: bool) -> list[dict[str, float]]:
        self.asked.append((spans, brief))
        return [self._careful if self._careful is not None and not brief else self._glance(span) for span in spans]

    def _glance(self, span: Span) -> dict[str, float]:
        middle_s = (span.start_s + span.end_s) / 2
        return {language: 0.95 for language, (start_s, end_s) in self._brief.items() if start_s <= middle_s < end_s}


def plan_of(ear: Ear) -> LanguagePlan:
    plan = asyncio.run(plan_languages(SPEECH, 30, ear))
    assert plan is not None
    return plan


def named_plan_of(ear: Ear, *named: str) -> LanguagePlan:
    plan = asyncio.run(plan_languages(SPEECH, 30, ear, named))
    assert plan is not None
    return plan


def parts(plan: LanguagePlan) -> list[tuple[float, float, str]]:
    return [(each.start_s, each.end_s, each.language) for each in plan.passages]


def test_one_language_is_voted_by_five_chunks_at_most() -> None:
    """All speech is looked at once, a few chunks with care, and nothing is warned of."""
    ear = Ear({"en": (0, 60)})
    plan = plan_of(ear)
    assert (parts(plan), plan.language) == ([(0, 59, "en")], "en")
    assert plan.probability == pytest.approx(0.95)
    assert [(len(spans), brief) for spans, brief in ear.asked] == [(12, True), (2, False)]
    assert language_warnings(plan, SPEECH) == []


def test_parts_in_two_languages_are_heard_in_their_own() -> None:
    """The result's language is that of most speech; the other one is told, with seconds and share."""
    plan = plan_of(Ear({"ko": (0, 20), "en": (20, 60)}))
    assert (parts(plan), plan.language) == ([(0, 19, "ko"), (20, 59, "en")], "en")
    assert language_warnings(plan, SPEECH) == [
        ResultWarning(code=WarningCode.OTHER_LANGUAGE, language="ko", seconds=16, share=1 / 3)
    ]


def test_a_change_that_is_not_confirmed_is_none() -> None:
    """What sounds Korean at a glance, and English when heard with care, is English."""
    plan = plan_of(Ear({"ko": (0, 20), "en": (20, 60)}, {"en": 0.9, "ko": 0.05}))
    assert parts(plan) == [(0, 59, "en")]


def test_the_careful_vote_wins() -> None:
    """Where the glance took the video's language for another, all that it took for it is heard in the right one."""
    plan = plan_of(Ear({"ja": (0, 60)}, {"ko": 0.9, "ja": 0.05}))
    assert (parts(plan), plan.language) == ([(0, 59, "ko")], "ko")


def test_doubt_is_told() -> None:
    """A vote of less than 0.8 is a warning, with the language and its share."""
    plan = plan_of(Ear({"ko": (0, 60)}, {"ko": 0.7, "ja": 0.3}))
    assert language_warnings(plan, SPEECH) == [
        ResultWarning(code=WarningCode.LANGUAGE_UNCERTAIN, language="ko", share=pytest.approx(0.7))
    ]
    assert language_warnings(plan_of(Ear({"ko": (0, 60)}, {"ko": 0.8})), SPEECH) == []


def test_where_no_language_can_be_told_there_is_no_plan() -> None:
    """No speech, silent windows, or chunks that say nothing when heard with care."""
    assert asyncio.run(plan_languages([], 30, Ear({}))) is None
    assert asyncio.run(plan_languages(SPEECH, 30, Ear({}))) is None
    assert asyncio.run(plan_languages(SPEECH, 30, Ear({"en": (0, 60)}, {}))) is None


class Bilingual(Ear):
    """Hears who speaks by the second; a span with both languages leaves it in doubt."""

    def __init__(self, korean: tuple[float, float], *, doubt: float = 0.0) -> None:
        super().__init__({})
        self._korean = Span(start_s=korean[0], end_s=korean[1])
        self._doubt = doubt

    def _glance(self, span: Span) -> dict[str, float]:
        share = span.overlap_s(self._korean) / span.duration_s
        return {"ja": self._doubt, "ko": (1 - self._doubt) * share, "en": (1 - self._doubt) * (1 - share)}


def test_of_named_languages_no_other_is_found() -> None:
    """What sounds most like Japanese is taken for the likelier one of those that are named."""
    ear = Ear({"ja": (0, 60), "ko": (0, 60)})
    assert parts(named_plan_of(ear, "en", "ko")) == [(0, 59, "ko")]
    assert named_plan_of(ear, "en", "ko").probability == 1
    assert asyncio.run(plan_languages(SPEECH, 30, Ear({"ja": (0, 60)}), ("en", "ko"))) is None


def test_between_named_languages_a_short_stretch_is_enough() -> None:
    """An answer of 1.5 s, of which the detection is not sure among all languages; without names it is overheard."""
    ear = Bilingual((20, 21.5), doubt=0.3)
    speech = [*SPEECH[:4], Span(start_s=20, end_s=21.5), Span(start_s=21.6, end_s=24), *SPEECH[5:]]
    named, plain = (asyncio.run(plan_languages(speech, 30, ear, names)) for names in (("en", "ko"), ()))
    assert named
    assert plain
    assert parts(named) == [(0, 19, "en"), (20, 21.5, "ko"), (21.6, 59, "en")]
    assert parts(plain) == [(0, 59, "en")]


def test_two_languages_without_a_pause_are_told_apart() -> None:
    """A window that is unsure of its language is looked at again in parts of 2 s at most."""
    ear = Bilingual((22, 29))
    assert parts(named_plan_of(ear, "en", "ko")) == [(0, 22, "en"), (22, 29, "ko"), (30, 59, "en")]
    again = [spans for spans, brief in ear.asked if brief][1]
    assert [(each.start_s, each.end_s) for each in again] == [(20, 22), (22, 24)]


def test_named_languages_are_no_surprise() -> None:
    """No warning tells of a second one; but where what is spoken is probably none of them, that is told."""
    plan = named_plan_of(Bilingual((20, 40)), "en", "ko")
    assert language_warnings(plan, SPEECH) == []
    foreign = named_plan_of(Ear({"en": (0, 60)}, {"fr": 0.8, "en": 0.19, "ko": 0.01}), "en", "ko")
    assert foreign.probability == pytest.approx(0.95)
    assert language_warnings(foreign, SPEECH) == [
        ResultWarning(code=WarningCode.LANGUAGE_UNCERTAIN, language="en", share=pytest.approx(0.19))
    ]
