"""Cuts a segment into the windows that a classifier gets, if possible from its own sound.

Plain functions over arrays; knows nothing of models. Lengths are multiples of `GRID_S`, so that windows of many
segments can be batched without padding, which would change the answers of some networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.types import SAMPLE_RATE_HZ, Audio

if TYPE_CHECKING:
    from deployments.types import Span

SHORTEST_S = 1.0
LONGEST_S = 15.0
GRID_S = 0.25
"""Step of window lengths. Less than half of it is left out at each edge of a segment: with as much of its neighbours
instead, which may be 20 dB louder, a soft segment got their emotion."""

SHORTEST, LONGEST, GRID = (round(length_s * SAMPLE_RATE_HZ) for length_s in (SHORTEST_S, LONGEST_S, GRID_S))


def cut_windows(audio: Audio, span: Span) -> list[Audio]:
    """Return windows of equal length over `span` of the whole video's `audio`, as views; none outside the audio.

    A segment shorter than `SHORTEST_S` is extended on both sides; one longer than `LONGEST_S` has several windows,
    evenly spread. Zeros are appended only where the video itself is shorter than `SHORTEST_S`.
    """
    first, end = (min(max(0, round(at_s * SAMPLE_RATE_HZ)), len(audio)) for at_s in (span.start_s, span.end_s))
    if end <= first:
        return []
    count = -(-(end - first) // LONGEST)
    length = max(SHORTEST, (end - first) // (count * GRID) * GRID)
    spare = end - first - length
    starts = np.linspace(first, end - length, count) if count > 1 else [first + spare // 2]
    return [_window(audio, round(float(start)), length) for start in starts]


def _window(audio: Audio, start: int, length: int) -> Audio:
    start = max(0, min(start, len(audio) - length))
    window = audio[start : start + length]
    return window if len(window) == length else np.pad(window, (0, length - len(window)))
