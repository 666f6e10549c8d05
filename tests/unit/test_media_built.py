"""Files that are put together at random: after extraction every click lies at its place, or the result says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from deployments.extraction.config import MediaLimits
from deployments.extraction.media_decoder import extract
from deployments.types import SAMPLE_RATE_HZ
from tests.support.built_media import LEVEL, MARGIN_S, build, draw

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.types import Audio

WITHIN_S = 0.02
NEAR_S = MARGIN_S - 0.05
FEW, MANY = 30, 300
EXPLAIN = {"AUDIO_GAPS", "CLOCK_JUMPS", "TRACK_CHOSEN", "AUDIO_INCOMPLETE", "AUDIO_LONGER"}
"""Warnings that a file without damage may have."""


def place_s(audio: Audio, about_s: float) -> float:
    """Where the loudest moment near a place is; -1 where there is no click."""
    first = max(0, round((about_s - NEAR_S) * SAMPLE_RATE_HZ))
    near = np.abs(audio[first : round((about_s + NEAR_S) * SAMPLE_RATE_HZ)].astype(int))
    if not len(near) or near.max() < 0.1 * LEVEL * 32768:
        return -1.0
    loud = np.flatnonzero(near > near.max() / 2)
    return float(first + loud.mean()) / SAMPLE_RATE_HZ


def check(seed: int, path: Path) -> None:
    recipe = draw(seed)
    begins_s = build(recipe, path)
    got = extract(path, limits=MediaLimits())
    codes = {warning.code.value for warning in got.warnings}
    clicks_s = [click_s - begins_s for click_s in recipe.clicks_s]
    places = {click_s: place_s(got.audio, click_s) for click_s in clicks_s}
    wrong = {click_s: at_s for click_s, at_s in places.items() if abs(at_s - click_s) > WITHIN_S}
    assert not wrong, (seed, recipe, codes)
    assert codes <= EXPLAIN, (seed, recipe, codes)
    assert ("TRACK_CHOSEN" in codes) == (recipe.silent_tracks > 0)
    gaps_s = _gaps_s(seed)
    assert "AUDIO_GAPS" in codes or gaps_s < 0.3, (seed, recipe, codes)  # the encoder's last frame fills a part
    assert "AUDIO_GAPS" not in codes or gaps_s > 0, (seed, recipe, codes)


def _gaps_s(seed: int) -> float:
    pieces = draw(seed).pieces
    return pieces[-1].at_s - pieces[0].at_s - sum(piece.seconds for piece in pieces[:-1])


@pytest.mark.parametrize("seed", range(FEW))
def test_every_click_lies_at_its_place(seed: int, tmp_path: Path) -> None:
    """Within 20 ms, whatever the codec, container, rate, channels, offset, gaps and tracks."""
    check(seed, tmp_path / "built")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(FEW, MANY))
def test_every_click_of_many_files(seed: int, tmp_path: Path) -> None:
    """The same over many more files."""
    check(seed, tmp_path / "built")
