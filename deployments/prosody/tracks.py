"""The engine `librosa`: pitch and level over time, piece by piece.

They are computed in blocks on a grid over the video, each with some context on both sides. A frame's values depend on
its block and not on the piece, so that joined pieces equal the whole video bit by bit, and memory is that of one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import librosa
import numpy as np

from deployments.prosody.pitch import HOP, PitchRange, pitch
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Span, Tracks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deployments.types import Audio

BLOCK_FRAMES = 20 * FRAMES_PER_S
CONTEXT_FRAMES = 1 * FRAMES_PER_S
"""Context on both sides of a block, after which the pitch path does not depend on where it began."""
FLOOR_DBFS = -120.0
FULL_SCALE = 32768


class LibrosaEngine:
    """See `ProsodyEngine`: level and autocorrelation by librosa, SwiftF0's network as second opinion (`pitch.py`)."""

    def __init__(self, *, within: PitchRange) -> None:
        self._within = within
        self.tracks(np.ones(SAMPLE_RATE_HZ, np.int16), Span(start_s=0, end_s=1))  # compiles and loads what is lazy

    def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Return pitch and level inside `piece`."""
        return tracks(audio, piece, within=self._within)


def tracks(audio: Audio, piece: Span, *, within: PitchRange = PitchRange()) -> Tracks:  # noqa: B008 - immutable
    """Return pitch and level of the frames centred inside `piece`, its end excluded; silence beyond the audio's end.

    Frames are centred at whole multiples of 1 / `FRAMES_PER_S`: where `piece` starts between two of them,
    `Tracks.start_s` is the later one. `audio` is the whole video's.
    """
    first, stop = _frame_at(piece.start_s), _frame_at(piece.end_s)
    f0_hz = np.full(max(0, stop - first), np.nan, np.float32)
    level_dbfs = np.full(f0_hz.size, FLOOR_DBFS, np.float32)
    stop = min(stop, _frames_in(audio))
    blocks = range(first - first % BLOCK_FRAMES, stop, BLOCK_FRAMES) if first < stop else ()
    for start in blocks:
        low, high = max(first, start), min(stop, start + BLOCK_FRAMES)
        f0_hz[low - first : high - first] = _block_pitch(audio, start, within)[low - start : high - start]
        level_dbfs[low - first : high - first] = _level(audio, low, high)
    return Tracks(start_s=first / FRAMES_PER_S, f0_hz=f0_hz, level_dbfs=level_dbfs)


def _frame_at(time_s: float) -> int:
    """Return the first frame centred at `time_s` or later, with a tolerance for rounding."""
    return int(np.ceil(time_s * FRAMES_PER_S - 1e-6))


def _frames_in(audio: Audio) -> int:
    """Return the number of frames centred inside the audio."""
    return -(-audio.size // HOP)


def _block_pitch(audio: Audio, start: int, within: PitchRange) -> NDArray[np.float32]:
    """Return F0 of the block that starts at frame `start`: `BLOCK_FRAMES` frames, fewer where the audio ends."""
    low = max(0, start - CONTEXT_FRAMES)
    high = min(_frames_in(audio), start + BLOCK_FRAMES + CONTEXT_FRAMES)
    half = within.window // 2
    samples = _samples(audio, low * HOP - half, (high - 1) * HOP + half)
    return pitch(samples, within)[start - low : start - low + BLOCK_FRAMES]


def _level(audio: Audio, low: int, high: int) -> NDArray[np.float32]:
    """Return the RMS level in dBFS of frames `low` to `high`; a full-scale square wave is 0, a full-scale sine -3.01.

    Frames are 10 ms, end to end: every sample counts once, and the mean power of a word's frames is the word's.
    """
    samples = _samples(audio, low * HOP - HOP // 2, high * HOP - HOP // 2)
    rms = librosa.feature.rms(y=samples, frame_length=HOP, hop_length=HOP, center=False)[0]
    level_dbfs: NDArray[np.float32] = librosa.amplitude_to_db(rms, ref=1.0, amin=10 ** (FLOOR_DBFS / 20), top_db=None)
    return np.clip(level_dbfs, FLOOR_DBFS, 0)  # float32 logarithms differ by a digit between processors


def _samples(audio: Audio, start: int, stop: int) -> NDArray[np.float32]:
    """Return samples `start` to `stop` as float32 within -1 to 1, zeros where the audio has none."""
    inside = audio[max(0, start) : max(0, stop)].astype(np.float32) / np.float32(FULL_SCALE)
    before = max(0, -start)
    return np.pad(inside, (before, stop - start - before - inside.size))
