"""Where a chunk pauses: cuts inside speech that is already known to be speech.

Knows nothing of any recogniser. The speech detector has cut the video into chunks before; this looks closer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deployments.types import Audio

FRAME_S = 0.01
FRAME = round(FRAME_S * SAMPLE_RATE_HZ)
SMOOTH_FRAMES = 5
"""Levels are averaged over 50 ms, so that the closure of a stop consonant is no pause."""
QUIET_SHARE = 0.25
"""A pause lies below this share of the way up from the chunk's floor (5th percentile) to its peaks (95th), in dB."""


def levels_db(audio: Audio) -> NDArray[np.float32]:
    """RMS level of each 10 ms of `audio`, smoothed: shape (frames,), dB over one quantisation step."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    power = np.square(frames).mean(axis=1)
    if len(power) >= SMOOTH_FRAMES:
        power = np.convolve(power, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES, np.float32), mode="same")
    return np.asarray(10 * np.log10(np.maximum(power, 1)), np.float32)


def quiet_runs(levels: NDArray[np.float32], *, min_s: float) -> list[tuple[int, int]]:
    """Runs of quiet frames of at least `min_s`, as (first, one past the last)."""
    floor, peak = np.percentile(levels, (5, 95))
    quiet = np.concatenate(([False], levels < floor + QUIET_SHARE * (peak - floor), [False]))
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if (b - a) * FRAME_S >= min_s]


def pieces(audio: Audio, *, min_pause_s: float, min_piece_s: float) -> list[tuple[int, int]]:
    """Cut `audio` in the middle of its pauses: sample ranges that cover it whole, none shorter than `min_piece_s`.

    Audio without a pause, or too short for two pieces, comes back as one range; no audio as none.
    """
    if len(audio) == 0:
        return []
    cuts = [0]
    if len(audio) >= 2 * min_piece_s * SAMPLE_RATE_HZ:
        for first, end in quiet_runs(levels_db(audio), min_s=min_pause_s):
            cut = (first + end) // 2 * FRAME
            if min(cut - cuts[-1], len(audio) - cut) >= min_piece_s * SAMPLE_RATE_HZ:
                cuts.append(cut)
    return list(zip(cuts, [*cuts[1:], len(audio)], strict=True))
