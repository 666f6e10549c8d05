"""Level and pitch of each word, from the tracks by the rules of the wire contract. Knows nothing of audio."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deployments.types import FRAMES_PER_S, WordProsody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.types import Segment, Tracks, Word

VOLUME_DB = (-60.0, 0.0)
PITCH_HZ = (100.0, 1000.0)
UNKNOWN = WordProsody(volume_db=VOLUME_DB[0], pitch_hz=PITCH_HZ[0], voiced=False)
"""The values of a word where prosody failed or there is nothing to measure."""


class _Reading(NamedTuple):
    """One word's part of the tracks: its level, and the F0 of its voiced frames, shape (voiced frames,)."""

    volume_db: float
    f0_hz: NDArray[np.float32]


def measure(tracks: Tracks, segments: Sequence[Segment]) -> list[tuple[WordProsody, ...]]:
    """Return for each segment one `WordProsody` per word.

    `volume_db` is the RMS over the word. `pitch_hz` is the median F0 of its voiced frames; a word without any takes the
    value interpolated over time between its voiced neighbours in the segment (at its ends: the nearest one), else the
    median of all voiced frames in the speaker's words, else the lowest value.
    """
    readings = [[_read(tracks, word) for word in segment.words] for segment in segments]
    medians_hz = _speaker_medians_hz(segments, readings)
    return [
        _segment_prosody(segment, of_words, medians_hz.get(segment.speaker, PITCH_HZ[0]))
        for segment, of_words in zip(segments, readings, strict=True)
    ]


def _read(tracks: Tracks, word: Word) -> _Reading:
    """Read one word's part of the tracks. Frames that the word's edges cut count by the part that is inside."""
    start, end = ((time_s - tracks.start_s) * FRAMES_PER_S for time_s in (word.start_s, word.end_s))
    if end <= start:  # a moment: the frame around it
        start = round(start) - 0.5
        end = start + 1
    first, stop = max(0, int(np.floor(start + 0.5))), max(0, int(np.ceil(end + 0.5)))
    level_dbfs = tracks.level_dbfs[first:stop].astype(np.float64)
    centres = np.arange(first, first + level_dbfs.size)
    weights = np.clip(np.minimum(centres + 0.5, end) - np.maximum(centres - 0.5, start), 0, 1)
    if not weights.sum():
        return _Reading(VOLUME_DB[0], np.empty(0, np.float32))
    power = np.average(10 ** (level_dbfs / 10), weights=weights)
    f0_hz = tracks.f0_hz[first:stop][weights >= min(0.5, weights.max())]
    return _Reading(float(np.clip(10 * np.log10(power), *VOLUME_DB)), f0_hz[np.isfinite(f0_hz)])


def _speaker_medians_hz(segments: Sequence[Segment], readings: list[list[_Reading]]) -> dict[int, float]:
    """Return the median F0 over the whole video of each speaker with voiced frames."""
    by_speaker: dict[int, list[NDArray[np.float32]]] = defaultdict(list)
    for segment, of_words in zip(segments, readings, strict=True):
        by_speaker[segment.speaker] += [reading.f0_hz for reading in of_words if reading.f0_hz.size]
    return {speaker: _median_hz(np.concatenate(f0_hz)) for speaker, f0_hz in by_speaker.items() if f0_hz}


def _segment_prosody(segment: Segment, readings: list[_Reading], fallback_hz: float) -> tuple[WordProsody, ...]:
    middles_s = np.array([(word.start_s + word.end_s) / 2 for word in segment.words])
    voiced = np.array([reading.f0_hz.size > 0 for reading in readings], dtype=bool)
    pitch_hz = np.full(len(readings), fallback_hz)
    if voiced.any():
        pitch_hz[voiced] = [_median_hz(reading.f0_hz) for reading in readings if reading.f0_hz.size]
        pitch_hz[~voiced] = np.interp(middles_s[~voiced], middles_s[voiced], pitch_hz[voiced])
    return tuple(
        WordProsody(volume_db=reading.volume_db, pitch_hz=float(hz), voiced=bool(is_voiced))
        for reading, hz, is_voiced in zip(readings, pitch_hz, voiced, strict=True)
    )


def _median_hz(f0_hz: NDArray[np.float32]) -> float:
    return float(np.clip(np.median(f0_hz), *PITCH_HZ))
