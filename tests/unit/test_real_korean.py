from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import pytest
import soundfile

from deployments.transcriber.word_times import silences
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Audio
from deployments.warnings import WarningCode
from serve_app.cli.samples import conversation
from tests.support import real_models, sounds
from tests.support.real_graph import RealGraph, text_of, words_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.real_graph import Analysis

pytestmark = real_models.needs("whisper-base", "korean")

PAUSE_S = 1.0


@pytest.fixture(scope="module")
def ears() -> RealGraph:
    return RealGraph(real_models.part("whisper-base"))


@pytest.fixture(scope="module")
def sentences() -> list[tuple[Audio, str]]:
    """Three sentences of one Korean reader, and their texts."""
    folder = real_models.part("korean")
    assert folder
    return [(read(sound), sound.with_suffix(".txt").read_text("utf-8")) for sound in sorted(folder.glob("*.wav"))]


def read(path: object) -> Audio:
    return np.asarray(soundfile.read(path, dtype="int16")[0])


def in_a_row(*parts: Audio) -> Audio:
    return sounds.in_a_row(*parts, pause_s=PAUSE_S)


def call(start_s: float, end_s: float) -> Audio:
    """Of the demo's English telephone call."""
    return read(conversation().audio)[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]


def plain(text: str) -> str:
    """Without spaces and punctuation: Korean spacing is a matter of taste, and not heard."""
    return re.sub(r"[\W_]+", "", text)


def errors(text: str, heard: str) -> float:
    """Character error rate."""
    return float(jiwer.cer(plain(text), plain(heard)))


def text_in(language: str, heard: Analysis) -> str:
    return " ".join(segment.text for segment in heard.segments if segment.language == language)


def test_korean_is_found_and_understood(ears: RealGraph, sentences: list[tuple[Audio, str]]) -> None:
    """Each sentence alone and all in one file: `ko`, every word with its times, no warning, few wrong characters."""
    texts = [text for _, text in sentences]
    alone = [ears.hear(in_a_row(sound)) for sound, _ in sentences]
    together = ears.hear(in_a_row(*(sound for sound, _ in sentences)))
    for heard in (*alone, together):
        assert (heard.language, heard.warnings) == ("ko", [])
        words = [word for word, _ in words_of(heard)]
        assert all(before.end_s <= after.start_s for before, after in pairwise(words))
    assert errors(" ".join(texts), text_of(together)) <= 0.1
    assert errors(" ".join(texts), " ".join(map(text_of, alone))) <= 0.1


def test_words_begin_and_end_with_their_sentences_sound(ears: RealGraph, sentences: list[tuple[Audio, str]]) -> None:
    """Two seconds and more between them: the first word does not begin in the silence, nor the last one end there."""
    pause_s = 2.0
    heard = ears.hear(sounds.in_a_row(*(sound for sound, _ in sentences), pause_s=pause_s), language="ko")
    words = [word for word, _ in words_of(heard)]
    at_s = 0.0
    for sound, text in sentences:
        at_s += pause_s
        sounding = np.flatnonzero(~silences(sound, None)) / FRAMES_PER_S + at_s
        at_s += len(sound) / SAMPLE_RATE_HZ
        inside, words = words[: len(text.split())], words[len(text.split()) :]
        assert inside[0].start_s == pytest.approx(sounding[0], abs=0.3)
        assert inside[-1].end_s == pytest.approx(sounding[-1], abs=0.3)
    assert not words


@pytest.mark.parametrize("korean_first", [True, False])
def test_each_language_is_heard_as_itself(
    ears: RealGraph, sentences: list[tuple[Audio, str]], *, korean_first: bool
) -> None:
    """Korean and English in one file, in either order: each in its own, nothing invented, and it is told."""
    korean, english = [sound for sound, _ in sentences], call(6, 26)
    heard = ears.hear(in_a_row(*korean, english) if korean_first else in_a_row(english, *korean))
    assert heard.language == "en"
    assert [warning.code for warning in heard.warnings] == [WarningCode.OTHER_LANGUAGE]
    assert errors(" ".join(text for _, text in sentences), text_in("ko", heard)) <= 0.1
    assert "This is Diane in New Jersey. And I'm Sheila" in text_in("en", heard)
    assert "수고" not in text_of(heard)


@pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")
@pytest.mark.parametrize("text", ["No, no, no, no, no, no, no.", "Yes. Yes. Yes. Yes. Yes. Yes. I know."])
def test_what_is_said_again_and_again_stays(ears: RealGraph, tmp_path: Path, text: str) -> None:
    """A synthesized voice repeats a word: at least five of them are written, with no warning."""
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", tmp_path / "said.wav"], check=True)
    heard = ears.hear(in_a_row(read(tmp_path / "said.wav")), language="en")
    assert len(re.findall(r"\b(?:no|yes)\b", text_of(heard).lower())) >= 5
    assert heard.warnings == []


def test_nothing_is_written_over_music_for_minutes(ears: RealGraph) -> None:
    """Two minutes of melody and noise: no text, in either language."""
    music = sounds.as_int16(np.concatenate([sounds.melody(60), sounds.syllables_of_noise(60)]))
    assert [text_of(ears.hear(music, language=language)) for language in ("ko", "en")] == ["", ""]
