"""What of a segment a classifier hears: windows of a few fixed lengths, of its own sound wherever there is enough.

Plain functions over arrays; knows nothing of models. Lengths are multiples of `GRID_S`, so that windows of many
segments go through a network together without padding, which would change what some networks answer.
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
"""Less than half of this is left out at either edge of a segment. With as much of its neighbours, who may be 20 dB
louder, a soft segment was judged as theirs."""

SHORTEST, LONGEST, GRID = (round(length_s * SAMPLE_RATE_HZ) for length_s in (SHORTEST_S, LONGEST_S, GRID_S))


def cut_windows(audio: Audio, span: Span) -> list[Audio]:
    """The windows of equal length over `span` of the whole video's `audio`: views of it; none where there is no sound.

    A segment shorter than `SHORTEST_S` is heard with what is around it, one longer than `LONGEST_S` in several windows,
    evenly spread. Only where the video itself is shorter than `SHORTEST_S`, zeros follow.
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
    heard = audio[start : start + length]
    return heard if len(heard) == length else np.pad(heard, (0, length - len(heard)))
