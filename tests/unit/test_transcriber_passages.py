from __future__ import annotations

import pytest

from deployments.transcriber.passages import Passage, chunks_of, joined, likeliest, passages, speech_s, whole, windows
from deployments.types import Span


def spans(*edges: tuple[float, float]) -> list[Span]:
    return [Span(start_s=start_s, end_s=end_s) for start_s, end_s in edges]


def sounds_like(*languages: str | dict[str, float]) -> list[dict[str, float]]:
    """`ko` is a window that is sure of Korean, `ko?` one that leans to it."""
    return [
        each
        if isinstance(each, dict)
        else {each[:2]: 0.6, "fr": 0.1}
        if each.endswith("?")
        else {each: 0.95, "fr": 0.02}
        for each in languages
    ]


def found(*languages: str | dict[str, float], each_s: float = 3.0) -> list[tuple[float, float, str]]:
    """The passages of windows of `each_s`, half a second apart, numbered by window."""
    heard = spans(*((at * (each_s + 0.5), at * (each_s + 0.5) + each_s) for at in range(len(languages))))
    return [
        (round(p.start_s / (each_s + 0.5)), round((p.end_s + 0.5) / (each_s + 0.5)), p.language)
        for p in passages(heard, sounds_like(*languages))
    ]


def test_near_spans_are_heard_together() -> None:
    """Up to 7 s; a pause of more than 0.3 s, where a language may change, parts them, and longer speech is cut."""
    heard = windows(spans((0, 1), (1.2, 3), (3.4, 5), (5.1, 11), (20, 30)))
    assert [(w.start_s, w.end_s) for w in heard] == [(0, 3), (3.4, 5), (5.1, 11), (20, 25), (25, 30)]
    assert windows([]) == []


def test_a_video_in_one_language_is_one_passage() -> None:
    """Whatever single windows lean to: unsure ones, and one that is sure of another language but shorter than 2 s."""
    assert found("en", "en", "en?", "nl?", "en") == [(0, 5, "en")]
    assert found("en", "ko", "en", "en", each_s=1.9) == [(0, 4, "en")]
    assert found("nl?", "en?", "en?") == [(0, 3, "en")]
    assert found("ko") == [(0, 1, "ko")]


def test_each_part_has_its_own_language() -> None:
    """In either order, and there and back."""
    assert found("ko", "ko", "en", "en", "en") == [(0, 2, "ko"), (2, 5, "en")]
    assert found("en", "en", "en", "ko") == [(0, 3, "en"), (3, 4, "ko")]
    assert found("en", "ko", "ko", "en", "en") == [(0, 1, "en"), (1, 3, "ko"), (3, 5, "en")]


def test_unsure_windows_follow_their_neighbours() -> None:
    """Between two passages to the one that they sound like; languages of which no window is sure are none."""
    assert found("ko", "ja?", "ko", "en", "en", "en?", "en") == [(0, 3, "ko"), (3, 7, "en")]
    assert found("ko", {"de": 0.5, "en": 0.3, "ko": 0.1}, "en", "en") == [(0, 1, "ko"), (1, 4, "en")]
    assert found("ko", {"de": 0.5, "ko": 0.3, "en": 0.1}, "en", "en") == [(0, 2, "ko"), (2, 4, "en")]


def test_windows_that_know_nothing_change_nothing() -> None:
    """Silence has no language; where nothing has, there are no passages."""
    assert found("ko", {}, "ko", {}) == [(0, 4, "ko")]
    assert found({}, {}) == []
    assert passages([], []) == []


def test_chunks_stay_in_their_passage() -> None:
    """No chunk holds two languages, none is longer than it may be, and all speech is in one."""
    speech = spans((0, 4), (5, 9), (10, 14), (15, 19))
    chunks = chunks_of(
        [Passage(start_s=0, end_s=9, language="ko"), Passage(start_s=10, end_s=19, language="en")], speech, 10
    )
    assert [(c.start_s, c.end_s, c.language) for c in chunks] == [(0, 9, "ko"), (10, 19, "en")]
    assert [(c.start_s, c.end_s) for c in chunks_of(whole(speech, "ko"), speech, 10)] == [(0, 9), (10, 19)]
    assert speech_s(chunks, speech) == 16
    assert whole([], "ko") == []


def test_neighbours_of_one_language_are_one() -> None:
    """What turned out to be in the same language is heard together."""
    parts = [Passage(start_s=at, end_s=at + 1, language=language) for at, language in enumerate(("ko", "ko", "en"))]
    assert joined(parts) == [
        Passage(start_s=0, end_s=2, language="ko"),
        Passage(start_s=2, end_s=3, language="en"),
    ]


@pytest.mark.parametrize("order", [("en", "ko"), ("ko", "en")])
def test_of_equals_the_first_in_the_alphabet(order: tuple[str, str]) -> None:
    """So that a run can be repeated."""
    assert likeliest(dict.fromkeys(order, 0.5)) == "en"
