"""How good the small models are through the production engines, on sentences and voices that they never met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.held_out import graph, recording, score
from tests.support.real_graph import words_of
from tests.support.small_diarizer import build_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.alignment_clips import Clip
    from tests.support.real_graph import Analysis

UNHEARD = ("unheard_rms", pytest.param("unheard_max", marks=pytest.mark.full))
TWO = ("two_max_f3", pytest.param("two_rms_slt", marks=pytest.mark.full))
MOST_WORD_ERRORS = 0.10
MOST_APART_S = 0.080
RIGHT_SPEAKER = 0.95


@pytest.fixture(scope="module")
def hear(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Clip, Analysis]]:
    """A recording by its name, and what is heard in it: once for all tests."""
    stages = graph(build_pipeline(tmp_path_factory.mktemp("models") / "diarizer", narrow=True))
    kept: dict[str, tuple[Clip, Analysis]] = {}

    def heard(name: str) -> tuple[Clip, Analysis]:
        if name not in kept:
            kept[name] = recording(name), stages.hear(recording(name).audio)
        return kept[name]

    return heard


@pytest.mark.parametrize("name", [*UNHEARD, "korean", *TWO])
def test_nine_words_of_ten_are_right(hear: Callable[[str], tuple[Clip, Analysis]], name: str) -> None:
    """On new sentences, of voices never trained on too, and in a second language, which is found by itself."""
    said, heard = hear(name)
    assert heard.language == said.language
    assert score(said, words_of(heard)).error_rate <= MOST_WORD_ERRORS


@pytest.mark.parametrize("name", [*UNHEARD, "korean", *TWO])
def test_words_lie_where_the_synthesizer_says_them(hear: Callable[[str], tuple[Clip, Analysis]], name: str) -> None:
    """Starts and ends within 80 ms of the synthesizer's own times, in the median."""
    said, heard = hear(name)
    result = score(said, words_of(heard))
    assert np.median(np.abs(result.starts_s)) <= MOST_APART_S
    assert np.median(np.abs(result.ends_s)) <= MOST_APART_S


@pytest.mark.parametrize("name", [*UNHEARD, *TWO])
def test_voices_are_told_apart(hear: Callable[[str], tuple[Clip, Analysis]], name: str) -> None:
    """One voice is one speaker, two are two, and the words go to the right one."""
    said, heard = hear(name)
    assert len({speaker for _, speaker in words_of(heard)}) == len(set(said.voices))
    assert score(said, words_of(heard)).right_speaker >= RIGHT_SPEAKER
