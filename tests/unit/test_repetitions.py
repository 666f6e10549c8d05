from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.hallucinations.repetitions import (
    CHUNKS,
    REPEATS,
    cut_letter_loops,
    cut_loops,
    drop_repeated_texts,
    is_speakable,
    looped_phrases,
)
from deployments.types import Span, Transcript, Utterance
from deployments.warnings import ResultWarning, WarningCode

PLAIN = "The meeting begins at three and ends before the train leaves."


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("no no no no I mean it", "no no no no I mean it"),
        ("no no no no no I mean it", "no I mean it"),
        ("Thank you. Thank you. Thank you. Thank you. thank you! Thank", "Thank you."),
        ("so a b c a b c a b c a b c a b c a b", "so a b c"),
        ("a b c a b c a b c a b c a b c then", "a b c then"),
        ("네 네 네 네 네 네 알겠습니다", "네 알겠습니다"),
        ("아아아아아아아아아아아아아아 좋다", "아 좋다"),
        ("hahahahahahahahahahahahahahaha", "ha"),
        ("It costs 1000000000000000 won", "It costs 1000000000000000 won"),
        ("", ""),
    ],
)
def test_a_loop_is_cut_to_one(text: str, cut: str) -> None:
    """A phrase said five times in a row is written once, with the loop's torn end; people's own repetitions stay."""
    assert cut_loops(text) == cut


@given(st.lists(st.text("abc", min_size=1, max_size=2), max_size=40))
def test_cutting_only_removes_repeated_words(words: list[str]) -> None:
    """What is left is a subsequence of the words, and nothing is left to cut in it that was not there before."""
    kept = iter(cut_loops(" ".join(words)).split())
    following = next(kept, None)
    for word in words:
        if word == following:
            following = next(kept, None)
    assert following is None


def test_without_a_loop_nothing_changes() -> None:
    """Words that all differ from their neighbours, and phrases repeated less often, stay."""
    assert cut_loops(PLAIN) == PLAIN
    often = " ".join(["one two three"] * (REPEATS - 1))
    assert cut_loops(often) == often


def test_a_loops_phrases_are_told() -> None:
    """In plain letters, without what is said once."""
    assert looped_phrases("so no, no. No no no it is a b a b a b a b a b") == {"no", "a b"}
    assert looped_phrases(PLAIN) == frozenset()


def test_letters_alone_are_cut_where_words_stay() -> None:
    """A cluster inside a word, however often the words come."""
    assert cut_letter_loops("네 네 네 네 네 네 아아아아아아아아아아아아아아") == "네 네 네 네 네 네 아"


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("No, no, no, no, no, no.", 4.2),
        ("네 네 네 네 네 네", 1.5),
        ("네, 네, 네, 네, 네, 네.", 4.0),
        ("하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열", 8.0),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20.", 11.3),
        (PLAIN, 3.5),
    ],
)
def test_what_people_say_takes_its_time(text: str, speech_s: float) -> None:
    """Repeated slowly or quickly, counted, in both languages."""
    assert is_speakable(text, speech_s)


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("I'm sorry. " * 7, 23.1),
        ("저희도 " * 5, 21.1),
        ("아, " * 5, 23.1),
        ("Thank you.", 20.0),
        ("6, " * 224, 22.8),
        ("네", 0.0),
    ],
)
def test_what_was_invented_takes_too_long_or_too_short(text: str, speech_s: float) -> None:
    """Loops that Whisper base wrote over speech backwards, under noise and with echoes, and the seconds of it."""
    assert not is_speakable(text, speech_s)


def chunk(number: int, text: str, *, confidence: float = 0.9) -> Transcript:
    """Of 30 s."""
    said = Utterance(start_s=30.0 * number, end_s=30.0 * number + 30, text=text, confidence=confidence)
    return Transcript(language="ko", utterances=(said,) if text else ())


def video(*texts: str, confidence: float = 0.9) -> dict[int, Transcript]:
    return {number: chunk(number, text, confidence=confidence) for number, text in enumerate(texts)}


def speech(count: int, each_s: float) -> list[Span]:
    """The first seconds of each chunk."""
    return [Span(start_s=30.0 * number, end_s=30.0 * number + each_s) for number in range(count)]


def test_the_same_sentence_for_minutes_goes() -> None:
    """Over detected speech that is far too long for it, whole or several times in a chunk; it is told and counted."""
    invented = video(
        "회의를 시작합니다", "수고하셨습니다.", "", "수고하셨습니다!", "수고하셨습니다. 수고하셨습니다.", "끝"
    )
    left = drop_repeated_texts(invented, speech(6, 20))
    assert [[each.text for each in left[number].utterances] for number in range(6)] == [
        ["회의를 시작합니다"], [], [], [], [], ["끝"]
    ]  # fmt: skip
    for number in (1, 3, 4):
        assert left[number].warnings == (ResultWarning(code=WarningCode.REPEATED_TEXT_DROPPED, count=1),)


@pytest.mark.parametrize(
    ("texts", "each_s", "confidence"),
    [
        (["다음 역은 시청입니다."] * 8, 2.0, 0.9),
        (["Breathe in."] * 8, 1.0, 0.8),
        (["Thank you."] * (CHUNKS - 1), 20.0, 0.3),
        (["One.", "Two.", "Three.", "Four."], 20.0, 0.3),
    ],
)
def test_what_is_announced_again_and_again_stays(texts: list[str], each_s: float, confidence: float) -> None:
    """A sentence that its sound has room for, one that comes seldom, and short answers that differ."""
    said = video(*texts, confidence=confidence)
    assert drop_repeated_texts(said, speech(len(texts), each_s)) == said


def test_unlikely_sentences_and_phantoms_are_not_believed_for_minutes() -> None:
    """However well their length fits."""
    unlikely = video(*["Thank you."] * 4, confidence=0.4)
    phantom = video(*["시청해주셔서 감사합니다."] * 4)
    for invented in (unlikely, phantom):
        assert not any(each.utterances for each in drop_repeated_texts(invented, speech(4, 1.5)).values())
