"""What of a segment the classifier hears, and what its labels are called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.emotion.classifier import GRID, LONGEST, SHORTEST, cut_windows, merged, renamed
from deployments.emotion.protocol import LABELS
from deployments.types import SAMPLE_RATE_HZ, Audio, Span

RATE = SAMPLE_RATE_HZ
SILENCE = np.zeros(80 * RATE, np.int16)


def counting(duration_s: float) -> Audio:
    """Samples that tell where they stood, 0.3 % apart: 1, 1, 1, … 2, 2, 2 …, read-only."""
    audio = (1 + np.arange(round(duration_s * RATE)) // 40).astype(np.int16)
    audio.flags.writeable = False
    return audio


@given(start=st.floats(0, 79), length=st.floats(0.001, 70))
def test_windows_cover_their_segment(start: float, length: float) -> None:
    """Equal lengths on the grid, 1-15 s; together they hear the segment but for less than a grid step per window."""
    first, end = round(start * RATE), min(round((start + length) * RATE), len(SILENCE))
    windows = cut_windows(SILENCE, Span(start_s=start, end_s=start + length))
    if end <= first:
        assert windows == []
        return
    (size,) = {len(window) for window in windows}
    assert size % GRID == 0
    assert SHORTEST <= size <= LONGEST
    assert len(windows) == -(-(end - first) // LONGEST)
    assert size == SHORTEST or 0 <= end - first - size * len(windows) < GRID * len(windows)


@pytest.mark.parametrize(
    ("start_s", "end_s", "heard"),
    [
        (10.0, 12.0, [(10.0, 12.0)]),
        (10.0, 10.05, [(9.525, 10.525)]),
        (10.0, 11.2, [(10.1, 11.1)]),
        (10.0, 12.3, [(10.025, 12.275)]),
        (0.1, 0.3, [(0.0, 1.0)]),
        (39.8, 40.5, [(39.0, 40.0)]),
        (5.0, 20.0, [(5.0, 20.0)]),
        (0.0, 40.0, [(0.0, 13.25), (13.375, 26.625), (26.75, 40.0)]),
    ],
)
def test_windows_lie_where_they_should(start_s: float, end_s: float, heard: list[tuple[float, float]]) -> None:
    """A short segment in the middle of its window, within the video; a long one evenly cut from start to end."""
    audio = counting(40.0)
    windows = cut_windows(audio, Span(start_s=start_s, end_s=end_s))
    assert len(windows) == len(heard)
    for window, (first_s, last_s) in zip(windows, heard, strict=True):
        np.testing.assert_array_equal(window, audio[round(first_s * RATE) : round(last_s * RATE)])


def test_a_video_shorter_than_a_window_ends_in_zeros() -> None:
    """Only there is padding; where there is no sound at all, there is no window."""
    (window,) = cut_windows(counting(0.25), Span(start_s=0.1, end_s=0.2))
    assert len(window) == SHORTEST
    assert np.count_nonzero(window) == RATE // 4
    for span in (Span(start_s=50, end_s=51), Span(start_s=0.1, end_s=0.1)):
        assert cut_windows(counting(0.25), span) == []


@pytest.mark.parametrize(
    ("label", "name"),
    [
        *((name, name) for name in LABELS),
        *(("neu", "neutral"), ("CALM", "neutral"), ("hap", "happy"), ("Happiness", "happy"), ("exc", "happy")),
        *(("sad ", "sad"), ("sadness", "sad"), ("ang", "angry"), ("anger", "angry"), ("fear", "fearful")),
        *(("disgust", "disgusted"), ("surprise", "surprised"), ("ps", "surprised"), ("Pleasant Surprise", "surprised")),
        *(("Boredom", "boredom"), ("LABEL_0", "label_0"), ("male_angry", "male_angry")),
    ],
)
def test_labels_are_called_by_one_name(label: str, name: str) -> None:
    """Abbreviations of the usual data sets become the contract's words; the unknown passes in lower case."""
    assert renamed(label) == name


def test_labels_of_one_name_add_up() -> None:
    """`calm` and `neutral` are one mood: their shares are summed."""
    names, sums = merged(["calm", "hap", "neutral", "Bored"])
    assert names == ("neutral", "happy", "bored")
    np.testing.assert_allclose(np.array([0.1, 0.2, 0.3, 0.4]) @ sums, [0.4, 0.2, 0.4], atol=1e-6)
