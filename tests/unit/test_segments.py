"""Segments as a person would write them down: one speaker, whole sentences, neither crumbs nor endless ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given

from deployments.sentence_ends import ends_sentence
from deployments.types import Turn, Utterance, Word
from serve_app.pipeline.segments import LONGEST_S, SHORT_S, parts_of, segments_of
from tests.unit.test_speakers import A, B, in_sequence, some_turns, some_words, turn, words


def texts(*parts: tuple[Word, ...]) -> list[str]:
    return [" ".join(word.text for word in part) for part in parts]


def said(text: str, *turns: Turn) -> list[tuple[int, str]]:
    utterance = Utterance(start_s=0, end_s=99, text=text, words=words(text))
    return [(segment.speaker, segment.text) for segment in segments_of([utterance], turns)]


def test_a_segment_is_one_speakers_sentence() -> None:
    """An utterance is cut at its sentences' ends and where the speaker changes, numbered in order of first speech."""
    text = "We will do it today. It is far too late. You think so too. Yes I do think so."
    assert said(text, turn(B, 4.1, 9), turn(A, 0, 4.1)) == [
        (0, "We will do it today."),
        (0, "It is far too late."),
        (0, "You think so too."),
        (1, "Yes I do think so."),
    ]


def test_a_sentence_that_two_utterances_share_is_one_segment() -> None:
    """A chunk's end within a sentence, without a pause, is no sentence's end."""
    first, second = words("this was cut in the"), words("middle of it.", 1.5)
    heard = [
        Utterance(start_s=1.5, end_s=3, text="", words=second),
        Utterance(start_s=0, end_s=1.5, text="", words=first),
    ]
    assert [segment.text for segment in segments_of(heard, [turn(A, 0, 9)])] == ["this was cut in the middle of it."]


def test_a_pause_ends_a_segment() -> None:
    """Languages without full stops, and recognisers that write none, have pauses; a breath is none."""
    assert texts(*parts_of(words("we went home | then we ate"))) == ["we went home | then we ate".replace("| ", "")]
    assert texts(*parts_of(words("we went home | | then we ate"))) == ["we went home", "then we ate"]


def test_a_short_sentence_shares_a_segment() -> None:
    """With its speaker's next or last one where they are close; alone it stays, and between two others."""
    assert texts(*parts_of(words("Yes. The red house is mine."))) == ["Yes. The red house is mine."]
    assert texts(*parts_of(words("It is not the blue one. No."))) == ["It is not the blue one. No."]
    assert texts(*parts_of(words("Yes. | | The red house is mine."))) == ["Yes.", "The red house is mine."]
    text = "Do you like it now? Yes. Good for you then."
    assert said(text, turn(A, 0, 1.5), turn(B, 1.5, 1.8), turn(A, 1.8, 5)) == [
        (0, "Do you like it now?"),
        (1, "Yes."),
        (0, "Good for you then."),
    ]


def test_long_speech_without_full_stops_is_cut_at_its_longest_pauses() -> None:
    """No part is longer than it may be, and the cut lies where the breath is, or the comma."""
    line = words("w " * 30 + "end | begin " + "w " * 30)
    parts = parts_of(line)
    assert [len(part) for part in parts] == [31, 31]
    assert parts[0][-1].text == "end"
    assert texts(*parts_of(words("w " * 30 + "end, begin " + "w " * 30)))[0].endswith("end,")
    hour = parts_of(words("w " * 12000))
    assert max(part[-1].end_s - part[0].start_s for part in hour) <= LONGEST_S
    assert min(part[-1].end_s - part[0].start_s for part in hour) >= LONGEST_S / 4


def test_a_word_longer_than_any_segment_stays_whole() -> None:
    """There is no place to cut it."""
    assert len(parts_of([Word(start_s=0, end_s=2 * LONGEST_S, text="w")])) == 1
    assert len(parts_of(words("w w", each_s=LONGEST_S))) == 2


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ("home.", "Then", True),
        ("home.", "then", True),
        ("home", "Then", False),
        ("really?", "Yes", True),
        ("no!", "stop", True),
        ('home."', "Then", True),
        ("home.”", "Then", True),
        ("(home.)", "Then", True),
        ("home,", "Then", False),
        ("Mr.", "Smith", False),
        ("Dr.", "Who", False),
        ("e.g.", "Apples", False),
        ("No.", "Nine", True),
        ("No.", "9", False),
        ("U.S.", "Army", False),
        ("J.", "Smith", False),
        ("I.", "Okay", True),
        ("p.m.", "on", False),
        ("3.5", "Euros", False),
        ("etc.", "and", False),
        ("well...", "maybe", False),
        ("well…", "maybe", False),
        ("well...", "Maybe", True),
        ("합니다.", "그리고", True),
        ("좋아요.", "네", True),
        ("좋아요", "네", False),
        ("です。", "それ", True),
        ("吗？", "是", True),  # noqa: RUF001
        ("好。」", "他", True),
        ("है।", "और", True),
        ("؟نعم", "لا", False),
        ("نعم؟", "لا", True),
    ],
)
def test_where_a_sentence_ends(before: str, after: str, *, ends: bool) -> None:
    """Full stops of every script, behind quotes too; not those of abbreviations, initials, numbers, hesitations."""
    assert ends_sentence(*words(f"{before} {after}")) is ends


@pytest.mark.parametrize("before", ["U.S.", "B.", "좋아요", "했습니다", "그랬죠"])
def test_a_breath_decides_what_the_spelling_leaves_open(before: str) -> None:
    """Initials, and Korean final endings without a full stop, end a sentence where a pause follows."""
    assert ends_sentence(*words(f"{before} | Then"))
    assert not ends_sentence(*words(f"{before} Then"))


@given(parts=some_words, turns=some_turns)
def test_the_same_words_come_out(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """Whatever the words and turns: the same words in the same order, no empty segment, one speaker each."""
    line = in_sequence(parts)
    segments = segments_of([Utterance(start_s=0, end_s=99, text="", words=line)], turns)
    assert [word for segment in segments for word in segment.words] == list(line)
    assert all(segment.words for segment in segments)
    assert [segment.start_s for segment in segments] == sorted(segment.start_s for segment in segments)


@given(parts=some_words, turns=some_turns)
def test_a_crumb_is_left_only_where_nothing_is_close(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """A segment shorter than a second has no close neighbour of its speaker."""
    segments = segments_of([Utterance(start_s=0, end_s=99, text="", words=in_sequence(parts))], turns)
    for before, after in pairwise(segments):
        if before.speaker == after.speaker and min(before.duration_s, after.duration_s) < SHORT_S:
            assert after.start_s - before.end_s > 0.39
