from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.transcriber.config import Guard
from deployments.transcriber.guard import (
    REPEATS,
    Hypothesis,
    Verdict,
    best,
    compression_ratio,
    cut_loops,
    judge,
    keep,
)
from deployments.warnings import WarningCode

GUARD = Guard()
PLAIN = "The meeting begins at three and ends before the train leaves."
LOOP = "and then we go " * 20


def heard(text: str = PLAIN, *, logprob: float = -0.2, no_speech: float = 0.1, temperature: float = 0.0) -> Hypothesis:
    return Hypothesis(text=text, average_logprob=logprob, no_speech=no_speech, temperature=temperature)


def test_the_compression_ratio_is_whispers() -> None:
    """Bytes over zlib's bytes: below the threshold for sentences in both languages, far above it for a loop."""
    assert compression_ratio("") == 0
    assert compression_ratio(PLAIN) < 1.5
    korean = "오늘 회의는 세 시에 시작하고 내일은 학교에서 친구를 만납니다. 커피를 마시고 음악을 들어요."
    assert compression_ratio(korean) < 2
    assert compression_ratio(LOOP) > 5
    assert compression_ratio("네 알겠습니다 " * 30) > 5


@pytest.mark.parametrize(
    ("hypothesis", "speech_share", "verdict"),
    [
        (heard(), 1.0, Verdict.GOOD),
        (heard(), 0.1, Verdict.GOOD),
        (heard(""), 0.1, Verdict.GOOD),
        (heard(LOOP), 1.0, Verdict.DOUBTFUL),
        (heard(logprob=-1.1), 1.0, Verdict.DOUBTFUL),
        (heard(no_speech=0.9), 1.0, Verdict.GOOD),
        (heard(no_speech=0.9), 0.29, Verdict.SILENT),
        (heard(no_speech=0.9, logprob=-1.1), 1.0, Verdict.SILENT),
        (heard(no_speech=0.5, logprob=-1.1), 0.1, Verdict.DOUBTFUL),
    ],
)
def test_each_measure_has_its_verdict(hypothesis: Hypothesis, speech_share: float, verdict: Verdict) -> None:
    """Loops and guesses are tried again; silence needs two witnesses, the model and the detector or the odds."""
    assert judge(hypothesis, speech_share, GUARD) is verdict


def test_the_best_of_doubtful_texts() -> None:
    """The likeliest of those that do not repeat themselves; where all do, the likeliest."""
    loop, guess, worse = heard(LOOP, logprob=-0.1), heard("a", logprob=-1.5), heard("b", logprob=-2.0)
    assert best([loop, worse, guess], GUARD) is guess
    assert best([heard(LOOP, logprob=-0.5), loop], GUARD) is loop


def test_what_is_believed_is_kept_as_it_is() -> None:
    """A good text passes word for word, with no warning."""
    kept = keep(heard("  시작,  OK?  3시 30분 "), 1.0, GUARD)
    assert (kept.text, kept.warnings, kept.dropped) == ("시작, OK? 3시 30분", (), 0)


@pytest.mark.parametrize(
    ("hypothesis", "speech_share", "text", "warning", "dropped"),
    [
        (heard("Thank you for watching!", no_speech=0.9), 0.1, "", WarningCode.SILENT_TEXT_DROPPED, 1),
        (heard(no_speech=0.9, logprob=-1.5), 1.0, "", WarningCode.SILENT_TEXT_DROPPED, 1),
        (heard(logprob=-1.5), 0.1, "", WarningCode.SILENT_TEXT_DROPPED, 1),
        (heard("Thank you for watching!"), 0.1, "", WarningCode.PHANTOM_DROPPED, 1),
        (
            heard("회의를 시작합니다. 시청해주셔서 감사합니다."),
            0.1,
            "회의를 시작합니다.",
            WarningCode.PHANTOM_DROPPED,
            1,
        ),
        (heard("yes " * 5 + "we can"), 1.0, "yes we can", WarningCode.LOOP_CUT, 1),
        (heard(logprob=-1.5), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN, 0),
        (heard(no_speech=0.9), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN, 0),
        (heard(temperature=0.6), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN, 0),
    ],
)
def test_what_is_left_out_is_told(
    hypothesis: Hypothesis, speech_share: float, text: str, warning: WarningCode, dropped: int
) -> None:
    """Every text that is dropped or cut has its sentence and is counted; what is uncertain is kept, with a sentence."""
    kept = keep(hypothesis, speech_share, GUARD)
    assert (kept.text, kept.warnings, kept.dropped) == (text, (warning,), dropped)


def test_signs_alone_are_no_text() -> None:
    """Dots and notes are left out, and nothing is lost with them."""
    for text in ("", "...", " . ♪ -"):
        kept = keep(heard(text, logprob=-2, no_speech=0.9), 0.1, GUARD)
        assert (kept.text, kept.warnings, kept.dropped) == ("", (), 0)


def test_said_in_speech_a_phantom_phrase_is_speech() -> None:
    """Where people speak, "thanks for watching" stays, in both languages."""
    for text in ("Thank you for watching!", "시청해주셔서 감사합니다."):
        assert keep(heard(text), 1.0, GUARD).text == text


def test_confidence_is_a_probability() -> None:
    """The mean probability of a token; rounding cannot lift it above 1."""
    assert heard(logprob=math.log(0.5)).confidence == pytest.approx(0.5)
    assert heard(logprob=1e-9).confidence == 1.0


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
