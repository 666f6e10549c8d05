"""Arousal of a segment: how agitated it sounds against the speaker's own norm in this video.

Level, mean F0 and F0 range rise together in anger and joy, and fall in sadness (Juslin and Laukka 2003). The voice
shows arousal reliably, and hardly anything else. Knows nothing of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.types import FRAMES_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.types import Segment, Tracks

LEVEL_UNIT_DB = 6.0
PITCH_UNIT_ST = 4.0
RANGE_UNIT_ST = 4.0
"""A rise by one unit in level, pitch and pitch range is a clearly raised voice: arousal 0.76 (tanh 1)."""
WEIGHTS = np.array([0.45, 0.35, 0.20])
"""Of level, pitch and pitch range. Level is the most robust of them, the range the least."""
MIN_VOICED_FRAMES = 10
NORM_HALF_S = 5.0
"""With this much other voiced speech of the speaker, trust is 0.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arousal:
    """`value`: -1 (far below the speaker's norm) to 1. `trust`: 0-1, by how much other speech the norm is based on."""

    value: float
    trust: float


UNKNOWN = Arousal(value=0.0, trust=0.0)


def arousals(tracks: Tracks, segments: Sequence[Segment]) -> list[Arousal]:
    """Return one arousal per segment; `UNKNOWN` where it has less than a tenth of a second of voice."""
    measured = [_measure(tracks, segment) for segment in segments]
    speakers = np.array([segment.speaker for segment in segments])
    values = np.array([value for value, _ in measured]).reshape(-1, len(WEIGHTS))
    frames = np.array([count for _, count in measured])
    answer = []
    for value, count, speaker in zip(values, frames, speakers, strict=True):
        if not count:
            answer.append(UNKNOWN)
            continue
        own = frames * (speakers == speaker)
        norm = np.average(values, axis=0, weights=own)
        other_s = int(own.sum() - count) / FRAMES_PER_S
        answer.append(Arousal(value=float(np.tanh(WEIGHTS @ (value - norm))), trust=other_s / (other_s + NORM_HALF_S)))
    return answer


def _measure(tracks: Tracks, segment: Segment) -> tuple[NDArray[np.float64], int]:
    """Return level, pitch and pitch range of `segment` in units, and its voiced frames (0 if too few)."""
    first, end = (max(0, round((t - tracks.start_s) * FRAMES_PER_S)) for t in (segment.start_s, segment.end_s))
    f0_hz = tracks.f0_hz[first:end]
    voiced = np.isfinite(f0_hz)
    count = int(voiced.sum())
    if count < MIN_VOICED_FRAMES:
        return np.zeros(len(WEIGHTS)), 0
    semitones = 12 * np.log2(f0_hz[voiced].astype(np.float64))
    low, middle, high = np.percentile(semitones, (10, 50, 90))
    level_db = float(np.median(tracks.level_dbfs[first:end][voiced]))
    return np.array([level_db / LEVEL_UNIT_DB, middle / PITCH_UNIT_ST, (high - low) / RANGE_UNIT_ST]), count
