from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from deployments.hallucinations.config import HallucinationThresholds
from deployments.hallucinations.hypotheses import (
    Hypothesis,
    Verdict,
    best,
    compression_ratio,
    filtered,
    judge,
)
from deployments.warnings import WarningCode

GUARD = HallucinationThresholds()
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
    assert best([loop, worse, guess], GUARD) == guess
    assert best([heard(LOOP, logprob=-0.5), loop], GUARD) == replace(loop, repeated=frozenset({"and then we go"}))


@pytest.mark.parametrize(
    ("text", "changed", "speech_s", "expected"),
    [
        ("No, no, no, no, no, no, no.", {}, 3.4, "No, no, no, no, no, no, no."),
        ("네 네 네 네 네 네 알겠습니다", {}, 2.5, "네 네 네 네 네 네 알겠습니다"),
        ("no " * 30, {"repeated": frozenset({"no"})}, 9, "no " * 30),
        ("no " * 30, {"repeated": frozenset({"yes"})}, 9, "no"),
        ("no " * 7, {}, 20, "no"),
        ("no " * 7, {"no_speech": 0.7}, 3.4, "no"),
        ("no " * 7, {"average_logprob": -1.1}, 3.4, "no"),
        ("no " * 7, {"temperature": 0.8}, 3.4, "no"),
        ("저희도 저희도 저희도 저희도 저희도", {"average_logprob": -0.78}, 21.1, "저희도"),
        ("아, 아, 아, 아, 아,", {"average_logprob": -1.46, "no_speech": 0.44}, 23.1, "아,"),
    ],
)
def test_repetition_that_is_said_stays_and_loops_go(
    text: str, changed: dict[str, Any], speech_s: float, expected: str
) -> None:
    """Said: likely, in a plausible time, drawn again and again. The Korean loops are Whisper base's own."""
    left = filtered(replace(heard(text), **changed), 1.0, GUARD, speech_s=speech_s)
    assert left.text == " ".join(expected.split())
    assert (WarningCode.LOOP_CUT in left.warnings) == (left.text != " ".join(text.split()))


def test_what_is_believed_is_kept_as_it_is() -> None:
    """A good text passes word for word, with no warning."""
    left = filtered(heard("  시작,  OK?  3시 30분 "), 1.0, GUARD, speech_s=2)
    assert (left.text, left.warnings) == ("시작, OK? 3시 30분", ())


@pytest.mark.parametrize(
    ("hypothesis", "speech_share", "text", "warning"),
    [
        (heard("Thank you for watching!", no_speech=0.9), 0.1, "", WarningCode.SILENT_TEXT_DROPPED),
        (heard(no_speech=0.9, logprob=-1.5), 1.0, "", WarningCode.SILENT_TEXT_DROPPED),
        (heard(logprob=-1.5), 0.1, "", WarningCode.SILENT_TEXT_DROPPED),
        (heard("Thank you for watching!"), 0.1, "", WarningCode.PHANTOM_DROPPED),
        (
            heard("회의를 시작합니다. 시청해주셔서 감사합니다."),
            0.1,
            "회의를 시작합니다.",
            WarningCode.PHANTOM_DROPPED,
        ),
        (heard("yes " * 5 + "we can"), 1.0, "yes we can", WarningCode.LOOP_CUT),
        (heard(logprob=-1.5), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN),
        (heard(no_speech=0.9), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN),
        (heard(temperature=0.6), 1.0, PLAIN, WarningCode.SPEECH_UNCERTAIN),
    ],
)
def test_what_is_left_out_is_told(hypothesis: Hypothesis, speech_share: float, text: str, warning: WarningCode) -> None:
    """Every text that is dropped or cut has its warning; what is uncertain is kept, with one, too."""
    left = filtered(hypothesis, speech_share, GUARD, speech_s=speech_share * 12)
    assert (left.text, left.warnings) == (text, (warning,))


@pytest.mark.parametrize(
    ("text", "speech_s", "warning"),
    [
        ("Thank you very much.", 0.08, WarningCode.PHANTOM_DROPPED),
        ("Thank you.", 0.31, WarningCode.PHANTOM_DROPPED),
        ("감사합니다.", 0.3, WarningCode.PHANTOM_DROPPED),
        ("Plastics.", 0.08, WarningCode.SILENT_TEXT_DROPPED),
        ("회의를 시작합니다.", 0.2, WarningCode.SILENT_TEXT_DROPPED),
    ],
)
def test_an_unsure_text_that_is_too_long_for_its_sound_goes(text: str, speech_s: float, warning: WarningCode) -> None:
    """What nobody can say so fast is dropped where the model doubts that there is speech; else, or said slower, not."""
    unsure = heard(text, no_speech=0.7)
    left = filtered(unsure, 0.5, GUARD, speech_s=speech_s)
    assert (left.text, left.warnings) == ("", (warning,))
    assert filtered(heard(text), 0.5, GUARD, speech_s=speech_s).text == text
    assert filtered(unsure, 0.5, GUARD, speech_s=0.9).text == text


def test_signs_alone_are_no_text() -> None:
    """Dots and notes are left out, and nothing is lost with them."""
    for text in ("", "...", " . ♪ -"):
        left = filtered(heard(text, logprob=-2, no_speech=0.9), 0.1, GUARD, speech_s=1)
        assert (left.text, left.warnings) == ("", ())


def test_said_in_speech_a_phantom_phrase_is_speech() -> None:
    """Where people speak, "thanks for watching" stays, in both languages."""
    for text in ("Thank you for watching!", "시청해주셔서 감사합니다."):
        assert filtered(heard(text), 1.0, GUARD, speech_s=2).text == text


def test_confidence_is_a_probability() -> None:
    """The mean probability of a token; rounding cannot lift it above 1."""
    assert heard(logprob=math.log(0.5)).confidence == pytest.approx(0.5)
    assert heard(logprob=1e-9).confidence == 1.0
