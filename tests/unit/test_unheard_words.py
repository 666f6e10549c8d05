from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deployments.aligner.config import AlignerConfig
from deployments.aligner.proportional import timed
from deployments.aligner.protocol import AlignItem
from deployments.aligner.registry import create
from deployments.hallucinations.unheard_words import (
    LEAST_WORDS,
    drop_unheard,
    drop_unheard_utterances,
    drop_words_outside_speech,
)
from deployments.types import SAMPLE_RATE_HZ, Audio, Span, Transcript, Utterance, Word
from deployments.warnings import ResultWarning, WarningCode
from tests.support.alignment_clips import MODEL, Clip, clips

BEFORE = ResultWarning(code=WarningCode.LOOP_CUT, count=1)
UNHEARD = ResultWarning(code=WarningCode.UNHEARD_DROPPED, count=1)


def utterance(*scores: float | None, confidence: float | None = 0.9) -> Utterance:
    words = tuple(
        Word(start_s=at, end_s=at + 0.5, text=f"w{at}", alignment_score=score) for at, score in enumerate(scores)
    )
    text = " ".join(word.text for word in words)
    return Utterance(start_s=0.0, end_s=float(len(words)), text=text, words=words, confidence=confidence)


def unlikely(*probabilities: float) -> Utterance:
    """Words with the recogniser's own measure, each its own, and no acoustic one."""
    scored = utterance(*probabilities)
    words = (replace(word, probability=word.alignment_score, alignment_score=None) for word in scored.words)
    return replace(scored, words=tuple(words))


def test_text_of_which_no_word_is_heard_goes() -> None:
    """It is left out, counted and told; what stands beside it stays, and so do warnings."""
    invented, spoken = utterance(0.001, 0.02, 0.0), utterance(0.001, 0.02, 0.4)
    heard = Transcript(language="en", utterances=(invented, spoken), warnings=(BEFORE,))
    left = drop_unheard_utterances(heard)
    assert left == replace(heard, utterances=(spoken,), warnings=(BEFORE, UNHEARD))


@pytest.mark.parametrize(
    "kept",
    [
        utterance(*[0.0] * (LEAST_WORDS - 1)),
        utterance(0.001, None, 0.001),
        timed(Utterance(start_s=0.0, end_s=3.0, text="three low words", confidence=0.01), "en"),
        unlikely(0.001, 0.02, 0.0),
        Utterance(start_s=0.0, end_s=3.0, text=""),
    ],
    ids=["few words", "not scored", "interpolated", "the recogniser's own", "no words"],
)
def test_what_cannot_be_judged_stays(kept: Utterance) -> None:
    """A word or two may be beyond an acoustic model, and without its scores there is no second witness."""
    heard = Transcript(language="en", utterances=(kept,))
    assert drop_unheard_utterances(heard) is heard


SPEECH = (Span(start_s=0.0, end_s=1.2), Span(start_s=3.9, end_s=5.0))
"""Around the first and the last of five words."""


def test_a_word_where_nobody_is_heard_goes() -> None:
    """Far from detected speech and not heard by the aligner; one that either of them hears stays, so do neighbours."""
    spoken = utterance(0.9, 0.05, 0.02, 0.02, 0.9)
    heard = Transcript(language="en", utterances=(spoken,))
    left = drop_words_outside_speech(heard, SPEECH)
    assert [word.text for word in left.utterances[0].words] == ["w0", "w1", "w3", "w4"]
    assert (left.utterances[0].text, left.warnings) == ("w0 w1 w3 w4", (UNHEARD,))
    sure = Transcript(language="en", utterances=(utterance(0.9, 0.05, 0.2, 0.02, 0.9),))
    assert drop_words_outside_speech(sure, SPEECH) is sure


def test_an_utterance_of_strays_goes_and_interpolated_words_stay() -> None:
    """Nothing is left of the one; the other has no acoustic score to be doubted by."""
    strays = Transcript(language="en", utterances=(utterance(0.9, 0.0, confidence=0.5),))
    assert drop_words_outside_speech(strays, [Span(start_s=8.0, end_s=9.0)]).utterances[0].text == "w0"
    gone = Transcript(language="en", utterances=(utterance(0.01, 0.0),))
    assert drop_words_outside_speech(gone, [Span(start_s=8.0, end_s=9.0)]).utterances == ()
    shared_out = timed(Utterance(start_s=0.0, end_s=3.0, text="three low words", confidence=0.01), "en")
    for kept in (shared_out, unlikely(0.001, 0.02, 0.0)):
        heard = Transcript(language="en", utterances=(kept,))
        assert drop_words_outside_speech(heard, []) is heard


def test_both_doubts_are_applied_in_order() -> None:
    """An utterance that the aligner does not hear goes whole, of the next one only the word outside speech."""
    heard = Transcript(language="en", utterances=(utterance(0.01, 0.02, 0.0), utterance(0.9, 0.05, 0.02, 0.02, 0.9)))
    left = drop_unheard(heard, SPEECH)
    assert ([each.text for each in left.utterances], left.warnings) == (["w0 w1 w3 w4"], (UNHEARD, UNHEARD))


def attended(*words: tuple[float, str], interpolated: bool = False) -> Transcript:
    """Words of half a second, timed by the recogniser itself, or `interpolated`."""
    said = tuple(
        Word(start_s=at, end_s=at + 0.5, text=text, probability=0.8, interpolated=interpolated) for at, text in words
    )
    text = " ".join(word.text for word in said)
    heard = Utterance(start_s=0.0, end_s=30.0, text=text, words=said, confidence=0.8)
    return Transcript(language="ko", utterances=(heard,))


SAID = [(0.0, "회의를"), (0.6, "시작합니다.")]


@pytest.mark.parametrize(
    "invented", [[(8.0, "정말"), (9.0, "수고하셨습니다.")], [(8.0, "시청해주셔서"), (8.6, "감사합니다.")]]
)
def test_a_sentence_behind_all_speech_goes(invented: list[tuple[float, str]]) -> None:
    """By the recogniser's own times; what is said before it stays, and it is told and counted."""
    left = drop_words_outside_speech(attended(*SAID, *invented), SPEECH)
    assert [word.text for word in left.utterances[0].words] == ["회의를", "시작합니다."]
    assert (left.utterances[0].text, left.warnings) == ("회의를 시작합니다.", (UNHEARD,))


@pytest.mark.parametrize(
    "kept",
    [
        attended(*SAID, (4.0, "정말"), (8.0, "수고하셨습니다.")),
        attended(*SAID, (8.0, "네.")),
        attended(*SAID, (8.0, "정말"), (9.0, "수고하셨습니다."), interpolated=True),
    ],
    ids=["begins in speech", "one word", "times by letters"],
)
def test_a_sentence_that_may_be_said_stays(kept: Transcript) -> None:
    """Where a word of it is near speech, where it is a short answer, and where nobody knows when it is said."""
    assert drop_words_outside_speech(kept, SPEECH) is kept


def melody() -> Audio:
    """Six seconds of plucked tones, with a vibrato."""
    seconds = np.arange(6 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    hz = 220 * 2 ** (np.array([0, 4, 7, 12, 9, 5, 2, 11, 0, 7, 4, 12])[(seconds * 2).astype(int)] / 12)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ + 0.3 * np.sin(2 * np.pi * 5.5 * seconds)
    tones = sum(np.sin(n * phase) / n for n in range(1, 9)) * np.exp(-4 * (seconds * 2 % 1))
    return np.asarray(3000 * tones, np.int16)


@pytest.fixture(scope="module")
def recorded() -> list[Clip]:
    return clips()


def test_speech_is_heard_and_the_same_text_over_music_is_not(recorded: list[Clip]) -> None:
    """The small aligner finds every sentence of six voices in their sound, and under noise as loud as they are.

    In a melody it finds hardly any of those with several words.
    """
    aligner = create(AlignerConfig(engine="ctc", models={"en": MODEL, "ko": MODEL}))
    draw = np.random.default_rng(0)
    long, gone = 0, 0
    for clip in recorded:
        level = float(np.sqrt(np.mean(clip.audio.astype(float) ** 2)))
        noise = draw.normal(scale=level, size=len(clip.audio))
        noisy = np.clip(clip.audio + noise, -32768, 32767).astype(np.int16)
        music = np.resize(melody(), len(clip.audio))
        sounds = [AlignItem(audio=audio, transcript=clip.transcript) for audio in (clip.audio, noisy, music)]
        clean, hard, invented = [each for each in aligner.align(sounds) if isinstance(each, Transcript)]
        assert drop_unheard_utterances(clean) is clean
        assert drop_unheard_utterances(hard) is hard
        long += sum(len(each.words) >= LEAST_WORDS for each in invented.utterances)
        gone += sum(each.count or 0 for each in drop_unheard_utterances(invented).warnings)
    assert long > 10
    assert gone >= 0.75 * long, (gone, long)
