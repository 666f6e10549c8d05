"""Files as people have them, from the file to the words, over real weights."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from deployments.diarizer.config import DiarizerConfig
from deployments.extraction.config import MediaLimits
from deployments.extraction.media_decoder import extract
from deployments.extraction.protocol import Selection
from deployments.types import SAMPLE_RATE_HZ
from tests.support import real_models, sounds
from tests.support.real_graph import RealGraph, text_of, words_of
from tests.support.word_errors import word_error_rate

if TYPE_CHECKING:
    from tests.support.real_graph import Analysis

pytestmark = real_models.needs("whisper-base", "community-1", "voices")

CALL = (
    ("slt", "Good morning, this is the service desk, how can I help you today?"),
    ("rms", "Hello, my printer on the second floor has stopped working since yesterday evening."),
    ("slt", "I am sorry to hear that. Could you tell me the number on the label at the back?"),
    ("rms", "Yes, there is a long number on it, and there is a red light blinking next to it."),
    ("slt", "Thank you, that usually means that the paper tray is empty or not closed."),
    ("rms", "I have filled the tray twice this morning, but the red light never goes away."),
    ("slt", "In that case I will send somebody to your office before lunch."),
    ("rms", "That would be wonderful, because we have to print the contracts for Monday."),
)
"""Of two people on the telephone, by the voices of flite that say it."""

WORST_APART = 0.06
"""Word error rate of a party in a channel of its own."""


@pytest.fixture(scope="module")
def graph() -> RealGraph:
    diarizer = DiarizerConfig(engine="pyannote", model=str(real_models.part("community-1")))
    return RealGraph(real_models.part("whisper-base"), diarizer=diarizer)


def heard(graph: RealGraph, path: Path, *channels: np.ndarray) -> Analysis:
    """What becomes of a WAV file with these `channels`."""
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE_HZ, subtype="PCM_16")
    return graph.hear(extract(path, limits=MediaLimits()).audio)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Those of `CALL`, spoken at one level."""
    if not shutil.which("flite"):
        pytest.skip("flite is not installed")
    folder, spoken = tmp_path_factory.mktemp("said"), []
    for number, (voice, text) in enumerate(CALL):
        path = folder / f"{number}.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path], check=True)
        samples = real_models.sound(path) / 2**15
        spoken.append(0.1 * samples / np.sqrt(np.mean(samples**2)))
    return spoken


@pytest.mark.parametrize(("overlap", "worst"), [(0.0, 0.02), (0.2, 0.2)])
@pytest.mark.parametrize("quieter_db", [0, 20])
def test_two_parties_in_two_channels(
    graph: RealGraph, sentences: list[np.ndarray], tmp_path: Path, *, quieter_db: int, overlap: float, worst: float
) -> None:
    """Hard left and right, one of them quieter: two speakers, no word lost but where both speak at once."""
    starts = np.cumsum([0, *(round(len(said) * (1 - overlap)) for said in sentences)])
    channels = np.zeros((2, starts[-1] + max(map(len, sentences))))
    for number, (at, said) in enumerate(zip(starts, sentences, strict=False)):
        channels[number % 2, at : at + len(said)] += said
    channels[1] *= 10 ** (-quieter_db / 20)
    found = heard(graph, tmp_path / "call.wav", *channels)
    assert word_error_rate(" ".join(text for _, text in CALL), text_of(found)) <= worst
    spoken = {0: 0.0, 1: 0.0}
    for word, speaker in words_of(found):
        middle = round((word.start_s + word.end_s) / 2 * SAMPLE_RATE_HZ)
        party = int(np.searchsorted(starts, middle, side="right") - 1) % 2
        spoken[party] += speaker == party
    assert {speaker for _, speaker in words_of(found)} == {0, 1}
    assert sum(spoken.values()) >= 0.85 * len(words_of(found))


def call(sentences: list[np.ndarray], overlap: float, quieter_db: float) -> np.ndarray:
    """Two parties hard left and right; at an overlap of 1 their sentences begin in pairs."""
    channels = np.zeros((2, sum(map(len, sentences)) + SAMPLE_RATE_HZ))
    at = 0
    for number, said in enumerate(sentences):
        channels[number % 2, at : at + len(said)] += said
        longest = max(len(said), len(sentences[number - 1]))
        at += round(len(said) * (1 - overlap)) if overlap < 1 else longest * (number % 2)
    channels[1] *= 10 ** (-quieter_db / 20)
    return channels[:, : at + max(map(len, sentences))]


def texts_apart(graph: RealGraph, path: Path, channels: np.ndarray) -> tuple[list[str], list[str]]:
    """What each of two speakers said by `channels: separate`, and the warnings of the extraction."""
    soundfile.write(path, channels.T, SAMPLE_RATE_HZ, subtype="PCM_16")
    got = extract(path, limits=MediaLimits(), selection=Selection(channels="separate"))
    found = graph.hear(got.audio, apart=got.channels, channels="separate")
    starts = [segment.start_s for segment in found.segments]
    assert starts == sorted(starts)
    assert all(0 <= word.start_s <= word.end_s <= got.duration_s for word, _ in words_of(found))
    texts = [" ".join(word.text for word, who in words_of(found) if who == party) for party in (0, 1)]
    return texts, [warning.code.value for warning in got.warnings]


@pytest.mark.parametrize(
    ("overlap", "quieter_db", "leak_db"),
    [(0.0, 0, None), (0.0, 0, -20), (0.2, 20, -35), (1.0, 0, -20), (1.0, 20, None), (1.0, 20, -35)],
)
def test_separate_channels_keep_every_word_of_both(
    graph: RealGraph,
    sentences: list[np.ndarray],
    tmp_path: Path,
    *,
    overlap: float,
    quieter_db: float,
    leak_db: float | None,
) -> None:
    """Who speaks at the same time, or is heard through in the other's channel, costs no word and adds none."""
    clean = call(sentences, overlap, quieter_db)
    leak = 0.0 if leak_db is None else 10 ** (leak_db / 20)
    texts, codes = texts_apart(graph, tmp_path / "call.wav", clean + leak * clean[::-1])
    rates = [word_error_rate(" ".join(text for _, text in CALL[party::2]), told) for party, told in enumerate(texts)]
    assert max(rates) <= WORST_APART, texts
    assert codes == []


@pytest.mark.parametrize("name", ["pink noise", "white noise", "chord", "clicks", "digital silence", "dither"])
def test_nothing_is_invented(graph: RealGraph, tmp_path: Path, name: str) -> None:
    """Half a minute in which nobody speaks has no word."""
    draw, count = np.random.default_rng(1), 30 * SAMPLE_RATE_HZ
    samples = {
        "pink noise": sounds.noise(30, slope=0.5) / 2**15,
        "white noise": 0.05 * draw.standard_normal(count),
        "chord": sounds.chord(30) / 2**15,
        "clicks": np.where(np.arange(count) % SAMPLE_RATE_HZ < 20, 0.8, 0.0),
        "digital silence": np.zeros(count),
        "dither": draw.integers(-1, 2, count) / 2**15,
    }[name]
    assert text_of(heard(graph, tmp_path / "nobody.wav", samples)) == ""


@pytest.mark.parametrize("voice", ["english_male", "american_female", "irish_male"])
@pytest.mark.parametrize("duration_s", [0.0001, 0.05, 0.2, 0.3, 0.5, 1.1])
def test_very_short_files(graph: RealGraph, tmp_path: Path, voice: str, duration_s: float) -> None:
    """Cut out of a sentence: no thanks that nobody said, and no word beyond the end."""
    whole = real_models.sound(Path(str(real_models.part("voices"))) / f"{voice}.wav") / 2**15
    for start_s in (0.3, 1.2, 2.1):
        piece = whole[round(start_s * SAMPLE_RATE_HZ) :][: round(duration_s * SAMPLE_RATE_HZ)]
        found = heard(graph, tmp_path / "short.wav", piece)
        assert "thank" not in text_of(found).lower()
        assert all(0 <= word.start_s <= word.end_s <= duration_s + 1e-4 for word, _ in words_of(found))
