"""Names and terms that a job gives, and the languages that it names, over real weights and real speech."""

from __future__ import annotations

import re
import shutil
import subprocess
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import pytest

from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.protocol import Chunk
from deployments.transcriber.registry import create
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript
from tests.support import real_models, sounds
from tests.support.needs import need
from tests.support.real_graph import RealGraph, text_of, words_of
from tests.support.word_errors import word_error_rate

if TYPE_CHECKING:
    from deployments.types import Audio
    from tests.support.real_graph import Analysis

pytestmark = real_models.needs("whisper-base", "voices", "korean")

LEVEL = 3000
"""Root mean square of each sentence's samples: no voice is louder than another."""
UNSAID = tuple(
    "Aisling Caoimhe Eszter Guangzhou Hrvoje Jaroslaw Kjetil Ljubljana Nguyen Przemysl Ragnhild Terraform Kafka"  # noqa: SIM905
    " PostgreSQL Kubernetes RabbitMQ Datadog Keycloak ibuprofen metformin lisinopril sertraline warfarin".split()
)
"""Terms that nobody says."""
PEAS = "Six spoons of fresh snow peas. "
SNAKE = "We also need a small plastic snake and a big toy frog."
"""What the first five voices say: four of them the one, the fifth the other."""
SAID = "Please send the contract for the Grafana dashboard to Hyunwoo Baek."
TERMS = ("Hyunwoo", "Grafana")


@pytest.fixture(scope="module")
def ears() -> RealGraph:
    return RealGraph(real_models.part("whisper-base"))


def leveled(path: Path) -> Audio:
    samples = real_models.sound(path).astype(float)
    return sounds.as_int16(samples * LEVEL / np.sqrt(np.mean(samples**2)))


@pytest.fixture(scope="module")
def voices() -> list[Audio]:
    """Sentences of real English speakers."""
    return [leveled(path) for path in sorted(Path(str(real_models.part("voices"))).glob("*.wav"))]


@pytest.fixture(scope="module")
def korean() -> list[tuple[Audio, str]]:
    """Sentences of a Korean reader, and their texts."""
    folder = Path(str(real_models.part("korean")))
    return [(leveled(path), path.with_suffix(".txt").read_text("utf-8")) for path in sorted(folder.glob("*.wav"))]


def test_names_are_written_as_the_vocabulary_has_them(ears: RealGraph, tmp_path: Path) -> None:
    """In a synthesized sentence, among names that nobody says, none of which is written; otherwise they are guessed."""
    need(shutil.which("flite"), "flite is not installed")
    subprocess.run(["flite", "-voice", "slt", "-t", SAID, "-o", tmp_path / "said.wav"], check=True)
    audio = leveled(tmp_path / "said.wav")
    guessed, told = (text_of(ears.hear(audio, language="en", vocabulary=each)) for each in ((), TERMS + UNSAID))
    assert not all(term in guessed for term in TERMS)
    assert all(term in told for term in TERMS)
    assert not [term for term in UNSAID if term in told]


def test_terms_that_nobody_says_change_no_word(ears: RealGraph, voices: list[Audio]) -> None:
    """And are not written themselves."""
    told = text_of(ears.hear(sounds.in_a_row(*voices[:5], pause_s=1.0), language="en", vocabulary=UNSAID))
    assert word_error_rate(f"{PEAS * 4} {SNAKE}", told) <= 0.05
    assert not [term for term in UNSAID if term.lower() in told.lower()]


def test_words_keep_their_times(ears: RealGraph, voices: list[Audio]) -> None:
    """In sentences that are heard alone: Whisper writes them alike with and without a vocabulary."""
    apart = []
    for voice in voices:
        audio = sounds.in_a_row(voice, pause_s=1.0)
        apart += same_words_apart_s(*(ears.hear(audio, language="en", vocabulary=each) for each in ((), UNSAID)))
    assert len(apart) >= 50
    assert np.quantile(apart, 0.9) <= 0.05


def same_words_apart_s(a: Analysis, b: Analysis) -> list[float]:
    """How far apart the words begin that both have, in the same order."""
    texts = [[letters(word.text).lower() for word, _ in words_of(each)] for each in (a, b)]
    starts_s = [[word.start_s for word, _ in words_of(each)] for each in (a, b)]
    return [
        abs(starts_s[0][block.a + at] - starts_s[1][block.b + at])
        for block in SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks()
        for at in range(block.size)
    ]


NOBODY = {
    "silence": np.zeros(20 * SAMPLE_RATE_HZ, np.int16),
    "pink noise": sounds.noise(20, slope=0.5),
    "melody": sounds.melody(20),
    "syllables of noise": sounds.syllables_of_noise(20),
    "siren": sounds.siren(20),
}


@pytest.mark.parametrize("name", NOBODY)
def test_nothing_of_a_vocabulary_is_written_where_nobody_speaks(ears: RealGraph, name: str) -> None:
    """Whisper copies the text before over silence and noise; of a long list no word is left."""
    assert text_of(ears.hear(NOBODY[name], language="en", vocabulary=UNSAID)) == ""


def test_nothing_is_copied_where_the_detector_hears_speech() -> None:
    """Noise that it takes for speech from end to end, 2 s and 20 s of it: no term is written there, either."""
    model = create(TranscriberConfig(model=str(real_models.part("whisper-base")), device="cpu", threads=1))
    chunks = [
        Chunk(audio=audio[: seconds * SAMPLE_RATE_HZ], start_s=0.0, language="en", vocabulary=UNSAID)
        for audio in NOBODY.values()
        for seconds in (2, 20)
    ]
    for chunk in chunks:
        [heard] = model.transcribe([chunk])
        assert isinstance(heard, Transcript)
        text = " ".join(each.text for each in heard.utterances)
        assert not [term for term in UNSAID if term.lower() in text.lower()], text


def alternating(voices: list[Audio], korean: list[tuple[Audio, str]], pause_s: float) -> tuple[Audio, list[Span]]:
    """English and Korean sentences in turn, and the spans of the Korean ones."""
    turns = [each for english, (said, _) in zip(voices, korean, strict=False) for each in (english, said)]
    audio, spans = sounds.in_turn(turns, pause_s)
    return audio, spans[1::2]


@pytest.mark.parametrize("pause_s", [0.3, 0.8])
def test_each_stretch_is_written_in_its_own_language(
    ears: RealGraph, voices: list[Audio], korean: list[tuple[Audio, str]], pause_s: float
) -> None:
    """Korean and English in turn, 2-5 s each: by the words' time nine tenths are right, and nothing is translated."""
    audio, spans = alternating(voices, korean, pause_s)
    heard = ears.hear(audio, languages=("en", "ko"))
    spoken = {True: 0.0, False: 0.0}
    for segment in heard.segments:
        for word in segment.words:
            in_korean = any(word.overlap_s(span) > word.duration_s / 2 for span in spans)
            spoken[in_korean == (segment.language == "ko")] += word.duration_s
    assert spoken[True] >= 0.9 * sum(spoken.values())
    said = "".join(text for _, text in korean)
    assert jiwer.cer(letters(said), letters(text_in("ko", heard))) <= 0.25
    assert not re.search("[가-힣]", text_in("en", heard))
    assert not re.search("[A-Za-z]{3}", text_in("ko", heard))


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def text_in(language: str, heard: Analysis) -> str:
    return " ".join(segment.text for segment in heard.segments if segment.language == language)
