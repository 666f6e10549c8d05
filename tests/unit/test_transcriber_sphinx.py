from __future__ import annotations

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import pytest
import soundfile

from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.engine import AUTO, Chunk, Recognizer, create
from deployments.transcriber.sphinx import MAX_WORD_S, Entry, split_at_pauses, timed_words
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript, Word

if TYPE_CHECKING:
    from deployments.types import Audio

MEDIA = Path(__file__).parents[2] / "examples" / "media"
MARGIN_S = 0.1


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return create(TranscriberConfig())


@pytest.fixture(scope="module")
def clear() -> list[tuple[Chunk, str]]:
    """The demo's conversation cut at its pauses: each line's chunk and its words."""
    audio: Audio = soundfile.read(MEDIA / "clear.flac", dtype="int16")[0]
    audio.flags.writeable = False  # as Ray hands it out
    lines = [line.split(maxsplit=5) for line in (MEDIA / "clear.stm").read_text().splitlines()]
    return [
        (_chunk(audio, Span(start_s=float(start) - MARGIN_S, end_s=float(end) + MARGIN_S)), _plain(text))
        for _, _, _, start, end, text in lines
    ]


def test_clear_speech_is_mostly_understood(recognizer: Recognizer, clear: list[tuple[Chunk, str]]) -> None:
    """Of clear speech at most a fifth of the words are wrong, and they lie where they were said."""
    clear = clear[:2] + clear[4:6]
    answers = _transcripts(recognizer, [chunk for chunk, _ in clear])
    heard = [_plain(" ".join(u.text for u in answer.utterances)) for answer in answers]
    assert jiwer.wer([text for _, text in clear], heard) <= 0.2
    for (chunk, _), answer in zip(clear, answers, strict=True):
        words = [word for utterance in answer.utterances for word in utterance.words]
        edges = [edge for word in words for edge in (word.start_s, word.end_s)]
        assert all(a <= b for a, b in itertools.pairwise(edges))
        assert edges[0] == pytest.approx(chunk.start_s + MARGIN_S, abs=0.25)
        assert edges[-1] == pytest.approx(chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ - MARGIN_S, abs=0.25)
        assert edges[-1] <= chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ
        assert all(word.confidence is not None and 0 <= word.confidence <= 1 for word in words)
        assert (answer.language, answer.warnings) == ("en", ())


def test_an_answer_depends_on_its_chunk_alone(recognizer: Recognizer, clear: list[tuple[Chunk, str]]) -> None:
    """To the last digit of a confidence, a chunk's answer is the same first, after others, and after noise."""
    chunk, other = _short(clear[2][0]), _short(clear[4][0])
    noise = np.random.default_rng(0).normal(scale=2000, size=SAMPLE_RATE_HZ).astype(np.int16)
    between = [other, Chunk(audio=noise, start_s=0, language="en")]
    first, *_, last = _transcripts(recognizer, [chunk, *between, chunk])
    assert first == last


def test_a_chunk_that_fails_fails_alone(recognizer: Recognizer, clear: list[tuple[Chunk, str]]) -> None:
    """A language that the engine cannot do is an error in its own place; its neighbours are answered."""
    good = _short(clear[3][0])
    foreign = Chunk(audio=good.audio, start_s=0, language="ko")
    before, failed, after = recognizer.transcribe([good, foreign, good])
    assert isinstance(failed, ValueError)
    assert isinstance(before, Transcript)
    assert before == after
    assert before.utterances


def test_auto_says_what_was_not_done(recognizer: Recognizer, clear: list[tuple[Chunk, str]]) -> None:
    """Asked for `auto`, the answer is in English and says that the language was not detected."""
    chunk = Chunk(audio=_short(clear[3][0]).audio, start_s=0, language=AUTO)
    [answer] = _transcripts(recognizer, [chunk])
    assert answer.language == "en"
    [warning] = answer.warnings
    assert (warning.code, warning.language) == ("LANGUAGE_ASSUMED", "en")


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0),
        np.ones(1) * 9000,
        np.ones(100) * 9000,
        np.zeros(2 * SAMPLE_RATE_HZ),
        np.full(2 * SAMPLE_RATE_HZ, 5000.0),
        np.random.default_rng(0).normal(scale=3, size=2 * SAMPLE_RATE_HZ),
        np.random.default_rng(0).normal(scale=3000, size=2 * SAMPLE_RATE_HZ),
        np.cumsum(np.random.default_rng(0).normal(scale=30, size=2 * SAMPLE_RATE_HZ)),
        8000 * np.sin(np.arange(3 * SAMPLE_RATE_HZ) * 2 * np.pi * 120 / SAMPLE_RATE_HZ),
    ],
    ids=["nothing", "a sample", "a click", "silence", "constant", "hiss", "noise", "rumble", "hum"],
)
def test_no_speech_no_words(recognizer: Recognizer, audio: np.ndarray) -> None:
    """Silence, noise and tones give an empty transcript, and nothing is raised."""
    [answer] = _transcripts(recognizer, [Chunk(audio=audio.astype(np.int16), start_s=7, language="en")])
    assert answer.utterances == ()


def test_threads_do_not_mix(recognizer: Recognizer, clear: list[tuple[Chunk, str]]) -> None:
    """Calls from several threads at once get the answers that they get alone."""
    chunks = [_short(clear[2][0]), _short(clear[3][0])]
    alone = _transcripts(recognizer, chunks)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda chunk: recognizer.transcribe([chunk])[0], chunks))
    assert together == alone


def test_times_are_the_videos_and_stay_in_the_chunk() -> None:
    """Frames of 10 ms count from the chunk's start; nothing sticks out; what lasts seconds is no word."""
    path = [
        Entry("<s>", 0, 9, 1.0),
        Entry("hello(2)", 10, 39, 0.5),
        Entry("i", 40, 49, 1.0000001),
        Entry("oui", 50, 50 + round(MAX_WORD_S * 100), 0.9),
        Entry("there", 280, 305, 0.25),
        Entry("late", 306, 310, 0.25),
    ]
    words = list(timed_words(path, start_s=100.0, end_s=103.0))
    assert [(w.text, round(w.start_s, 9), round(w.end_s, 9), w.confidence) for w in words] == [
        ("hello", 100.1, 100.4, 0.5),
        ("I", 100.4, 100.5, 1.0),
        ("there", 102.8, 103.0, 0.25),
    ]


def test_a_pause_begins_an_utterance() -> None:
    """Words with half a second or more between them are apart, closer ones together; no words, no utterances."""
    words = [Word(start_s=start, end_s=start + 0.25, text="a") for start in (0.0, 0.25, 0.9375, 1.6875, 1.9375)]
    assert [len(run) for run in split_at_pauses(words)] == [3, 2]
    assert split_at_pauses([]) == []


def _short(chunk: Chunk) -> Chunk:
    """The first second and a half."""
    return replace(chunk, audio=chunk.audio[: SAMPLE_RATE_HZ * 3 // 2])


def _chunk(audio: Audio, span: Span) -> Chunk:
    return Chunk(audio=span.of(audio), start_s=span.start_s, language="en")


def _transcripts(recognizer: Recognizer, chunks: list[Chunk]) -> list[Transcript]:
    answers = recognizer.transcribe(chunks)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    return [answer for answer in answers if isinstance(answer, Transcript)]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())
