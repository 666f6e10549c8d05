"""`metadata.quality` where it should and where it should not speak against a result, from the file to the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deployments.diarizer.config import DiarizerConfig
from deployments.prosody.config import ProsodyConfig
from tests.benchmarks.known_texts import count, recordings
from tests.support import real_models
from tests.support.process import ROOT
from tests.support.real_graph import RealGraph, text_of
from tests.support.spoilt_sound import SPOILT, babble, heard_through, nobody, overlapped

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.types import Audio

pytestmark = real_models.needs("whisper-base", "voices")

READING = ROOT / "examples" / "media" / "read.ogg"
"""A LibriVox reader; no limit was chosen on it."""
MOST_WRONG_IN_GOOD = 0.2
"""The share of words that are wrong: no held-out result that is called good has more (docs/benchmarks.md)."""

SPEAKERS = ("canadian_female", "australian_male", "english_female", "south_african_female")
BABBLERS = ("american_female", "english_male", "irish_male", "indian_female", "northern_irish_female")


@pytest.fixture(scope="module")
def graph() -> RealGraph:
    return RealGraph(real_models.part("whisper-base"), diarizer=DiarizerConfig(), prosody=ProsodyConfig())


def voices(names: tuple[str, ...]) -> list[Audio]:
    folder = real_models.part("voices")
    assert folder is not None
    return [real_models.sound(folder / f"{name}.wav") for name in names]


def quality_of(
    graph: RealGraph, audio: Audio, folder: Path, condition: str = "clean", **options: Any
) -> dict[str, Any]:
    """Of the audio in a file, spoilt so."""
    found = heard_through(SPOILT[condition], audio, babble(voices(BABBLERS)), folder)
    quality = graph.hear(found.audio, warnings=found.warnings, **options).quality
    assert quality is not None
    return quality


@pytest.mark.parametrize("condition", ["clean", "white 10 dB", "babble 10 dB"])
def test_what_is_understood_is_good(graph: RealGraph, tmp_path: Path, condition: str) -> None:
    """Clean speech, and noise in spite of which nine words of ten are right: no reason against it."""
    found = quality_of(graph, real_models.sound(READING), tmp_path, condition, language="en")
    assert (found["verdict"], found["reasons"]) == ("good", [])


@pytest.mark.parametrize(
    ("condition", "reasons"),
    [
        ("white 0 dB", {"LOW_CONFIDENCE"}),
        ("babble 0 dB", {"LOW_CONFIDENCE", "OVERLAPPED", "SPEECH_UNWRITTEN"}),
        ("20 % damaged", {"AUDIO_DAMAGED"}),
    ],
)
def test_what_is_hardly_understood_is_not_good(
    graph: RealGraph, tmp_path: Path, condition: str, reasons: set[str]
) -> None:
    """And the reason names what is the matter."""
    found = quality_of(graph, real_models.sound(READING), tmp_path, condition, language="en")
    assert found["verdict"] in {"doubtful", "poor"}
    assert reasons & set(found["reasons"])


def test_another_language_than_is_spoken_is_good_only_where_it_is_understood(graph: RealGraph) -> None:
    """English that the request calls German: on some processors Whisper writes English in spite of that."""
    reading = next(each for each in recordings() if each.kind == "real, read")
    heard = graph.hear(real_models.sound(READING), language="de")
    assert heard.quality is not None
    assert heard.quality["verdict"] != "good" or count(reading, text_of(heard)).rate <= MOST_WRONG_IN_GOOD


@pytest.mark.parametrize("name", ["silence", "white noise", "music"])
def test_where_nobody_speaks(graph: RealGraph, tmp_path: Path, name: str) -> None:
    """There is nothing to trust: the one reason is that there is no speech."""
    found = quality_of(graph, nobody()[name], tmp_path, language="en")
    assert found["reasons"][0] == "NO_SPEECH"


def test_two_who_speak_at_once(graph: RealGraph, tmp_path: Path) -> None:
    """The share of overlap rises with that of the sound, and half of the time is a reason."""
    shares = {share: quality_of(graph, overlapped(voices(SPEAKERS), share), tmp_path) for share in (0.0, 0.2, 0.6)}
    assert shares[0.0]["overlap_share"] < 0.05 < shares[0.2]["overlap_share"] < shares[0.6]["overlap_share"]
    assert "OVERLAPPED" in shares[0.6]["reasons"]
    assert "OVERLAPPED" not in shares[0.0]["reasons"]
