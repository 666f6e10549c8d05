"""F0 per frame, or the decision that a frame is unvoiced: Praat's autocorrelation method and a network beside it.

P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
sound", IFA Proceedings 17 (1993), 97-110; written from the paper, with its constants except where a comment says so.
Each frame's autocorrelation, divided by the window's own, gives a few candidate periods; those that SwiftF0 agrees with
gain; a Viterbi search then picks one of them, or "unvoiced", per frame, so that pitch does not jump an octave for one
frame. Neither decides alone: without a fundamental, autocorrelation takes octaves wrong; the network is coarse in time.

SwiftF0, whose weights (0.1 MB) are in its package: L. Nieradzik, "SwiftF0: Fast and Accurate Monophonic Pitch
Detection" (2025), arXiv:2508.18440. It finds the octave of a voice without a fundamental, and whether a periodic sound
is a voice. Its F0 is less precise and comes every 16 ms.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import librosa
import numpy as np
import scipy.signal

from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from swift_f0 import SwiftF0

HOP = SAMPLE_RATE_HZ // FRAMES_PER_S
PERIODS_IN_WINDOW = 3
CANDIDATES = 6
BATCH_FRAMES = 256
"""Frames per FFT call: more do not fit into the processor's cache and take longer (measured)."""

VOICING_THRESHOLD = 0.45
"""Normalised autocorrelation above which a frame is rather voiced than not (harmonics 0.9 dB below the noise)."""
SILENCE_THRESHOLD = 0.01
"""Peaks below this part of the loud ones count as unvoiced. Boersma has 0.03; then soft second speakers are lost."""
LOUD_PERCENTILE = 95
"""What "the loud ones" are. Boersma takes the maximum; then one click silences all speech around it."""
SILENT_PEAK = 2 / 32768
"""Absolute floor of peaks: below two steps of int16 there is no waveform left to judge."""
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICING_CHANGE_COST = 0.14
OPINION_WEIGHT = 0.4
"""By how much the network's opinion can raise or lower a candidate; perfect periodicity still stands against it."""
AGREEMENT_OCTAVES = 1 / 12
"""A candidate this near to the network's F0 is the one that it means."""
RUMBLE_HZ = 45.0
"""High-pass before the analysis, second order: wind, handling and mains hum are periodic too."""
BRIGHT_HZ = 2000.0
"""Low-pass before the analysis, first order: peaks stay wide enough to be interpolated, and noise weighs less."""
FULL_LEVEL = 0.5
"""Peak that loud frames are scaled to: the network was trained on recordings at full level and misses soft voices."""
MARGIN = 1.06
"""The network's range exceeds ours by this factor, since it does not find a pitch at the very edge of its range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PitchRange:
    """Lowest and highest pitch."""

    min_hz: float = 60.0
    max_hz: float = 1000.0

    @property
    def window(self) -> int:
        """Length of the analysis window in samples, even."""
        return 2 * round(PERIODS_IN_WINDOW * SAMPLE_RATE_HZ / self.min_hz / 2)

    @property
    def lags(self) -> tuple[int, int]:
        """Shortest and longest period in samples, with a little room, so that a tone at the very edge is a peak."""
        return int(SAMPLE_RATE_HZ / self.max_hz / 1.05), int(SAMPLE_RATE_HZ / self.min_hz * 1.05) + 1


class Candidates(NamedTuple):
    """Candidate pitches per frame, in no order.

    `f0_hz`: shape (frames, CANDIDATES), float32. `strength`: the same shape, up to 1, -inf where there is no candidate.
    `peak`: shape (frames,), float32, the largest absolute sample in the frame, 0-1.
    """

    f0_hz: NDArray[np.float32]
    strength: NDArray[np.float32]
    peak: NDArray[np.float32]


class Opinion(NamedTuple):
    """The network's answer for each frame.

    `f0_hz`: shape (frames,), float32. `confidence`: shape (frames,), float32, 0-1, that the frame is voiced and `f0_hz`
    is right; 0.5 is its calibrated threshold.
    """

    f0_hz: NDArray[np.float32]
    confidence: NDArray[np.float32]


def pitch(samples: NDArray[np.float32], within: PitchRange) -> NDArray[np.float32]:
    """Return F0 per frame in Hz, shape (frames,), float32, NaN where unvoiced.

    `samples`: shape (samples,), float32, -1 to 1, 16 kHz, with half a window more on either side than the frames need:
    frame i is centred at sample `within.window / 2 + i * HOP`.
    """
    high_pass = scipy.signal.butter(2, RUMBLE_HZ, "highpass", fs=SAMPLE_RATE_HZ, output="sos")
    low_pass = scipy.signal.butter(1, BRIGHT_HZ, "lowpass", fs=SAMPLE_RATE_HZ, output="sos")
    filtered = scipy.signal.sosfilt(np.vstack([high_pass, low_pass]), samples.astype(np.float64)).astype(np.float32)
    frames = librosa.util.frame(filtered, frame_length=within.window, hop_length=HOP, axis=0)
    batches = [candidates(frames[i : i + BATCH_FRAMES], within) for i in range(0, len(frames), BATCH_FRAMES)]
    found = Candidates(*(np.concatenate(part) for part in zip(*batches, strict=True)))
    centres = within.window // 2 + HOP * np.arange(len(frames))
    second = opinion(samples, centres, peak=loud_peak(found.peak), between_hz=(within.min_hz, within.max_hz))
    return best_path(weighed(found, second))


def candidates(frames: NDArray[np.float32], within: PitchRange) -> Candidates:
    """Return the strongest peaks of the autocorrelation of `frames`, shape (frames, `within.window`), float32."""
    shortest, longest = within.lags
    frames = frames - frames.mean(axis=1, keepdims=True)
    peak = np.abs(frames).max(axis=1)
    window = scipy.signal.get_window("hann", within.window).astype(np.float32)
    curve = librosa.autocorrelate(frames * window, max_size=longest + 2, axis=1)
    of_window = librosa.autocorrelate(window, max_size=longest + 2)
    curve *= of_window[0] / of_window / np.maximum(curve[:, :1], SILENT_PEAK**2)
    offset, height, is_peak = _parabolas(curve[:, shortest - 1 : longest + 2])
    lag = np.arange(shortest, longest + 1, dtype=np.float32) + offset
    np.divide(1, height, out=height, where=height > 1)  # above 1 only by interpolation; reflected, as Praat does
    strength = height - OCTAVE_COST * np.log2(lag * np.float32(within.min_hz / SAMPLE_RATE_HZ))
    strength[~is_peak | (height < VOICING_THRESHOLD / 2)] = -np.inf
    best = np.argpartition(-strength, CANDIDATES, axis=1)[:, :CANDIDATES]
    return Candidates(
        f0_hz=np.float32(SAMPLE_RATE_HZ) / np.take_along_axis(lag, best, axis=1),
        strength=np.take_along_axis(strength, best, axis=1),
        peak=peak,
    )


def _parabolas(curve: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return offset (within ±0.5) and height of the parabola through each inner point, and whether it is a peak."""
    left, middle, right = curve[:, :-2], curve[:, 1:-1], curve[:, 2:]
    is_peak = (middle >= left) & (middle > right)
    slope = (right - left) / 2
    bend = 2 * middle - left - right
    offset = np.divide(slope, bend, out=np.zeros_like(slope), where=is_peak)
    return offset, middle + slope * offset / 2, is_peak


def loud_peak(peak: NDArray[np.float32]) -> float:
    """Return the largest sample of the loud frames, at least that of the softest sound that can be analysed."""
    return max(float(np.percentile(peak, LOUD_PERCENTILE)), SILENT_PEAK / SILENCE_THRESHOLD)


def opinion(
    samples: NDArray[np.float32], centres: NDArray[np.intp], *, peak: float, between_hz: tuple[float, float]
) -> Opinion:
    """Return the network's answer for the frames centred at the sample numbers `centres`, shape (frames,).

    `samples`: shape (samples,), float32, 16 kHz, unfiltered. `peak`: largest sample of the loud frames, above 0.
    `between_hz`: lowest and highest pitch; a frame whose pitch lies outside has confidence 0.
    """
    scaled = np.clip(samples * np.float32(FULL_LEVEL / peak), -1, 1)
    lowest_hz, highest_hz = between_hz
    found = _detector().detect(scaled, SAMPLE_RATE_HZ, lowest_hz / MARGIN, highest_hz * MARGIN)
    times_s = centres / SAMPLE_RATE_HZ
    nearest = np.rint(np.interp(times_s, found.timestamps, np.arange(found.timestamps.size))).astype(np.intp)
    confidence = np.interp(times_s, found.timestamps, found.confidence)
    return Opinion(found.pitch_hz[nearest].astype(np.float32), confidence.astype(np.float32))


@functools.cache
def _detector() -> SwiftF0:
    """Return the network, loaded once per process; `detect` may be called from several threads."""
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)


def weighed(found: Candidates, second: Opinion) -> Candidates:
    """Return the candidates, strengthened by the network's confidence in a voice and in this pitch.

    Raised by `OPINION_WEIGHT` where it is sure of both, unchanged where it is sure of another pitch, lowered by
    `OPINION_WEIGHT` where it is sure that there is no voice.
    """
    agrees = np.abs(np.log2(found.f0_hz / second.f0_hz[:, None])) < AGREEMENT_OCTAVES
    gain = OPINION_WEIGHT * (second.confidence[:, None] * (1 + agrees) - 1)
    return found._replace(strength=found.strength + gain.astype(np.float32))


def unvoiced_strength(peak: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the strength of the candidate "unvoiced", shape (frames,): higher for frames quieter than the others."""
    silent = peak * ((1 + VOICING_THRESHOLD) / (SILENCE_THRESHOLD * loud_peak(peak)))
    strength: NDArray[np.float32] = VOICING_THRESHOLD + np.maximum(0, 2 - silent)
    return strength


def best_path(found: Candidates) -> NDArray[np.float32]:
    """Return F0 per frame, NaN where unvoiced, on the path with the greatest strength less the cost of changes."""
    strength = np.column_stack([unvoiced_strength(found.peak), found.strength])
    octave = np.log2(found.f0_hz)
    change = np.full((len(octave) - 1, CANDIDATES + 1, CANDIDATES + 1), VOICING_CHANGE_COST, np.float32)
    change[:, 1:, 1:] = OCTAVE_JUMP_COST * np.abs(octave[1:, :, None] - octave[:-1, None, :])
    change[:, 0, 0] = 0
    came_from = np.empty((len(strength), CANDIDATES + 1), np.intp)
    total = strength[0]
    for i, cost in enumerate(change, start=1):
        via = total - cost
        came_from[i] = via.argmax(axis=1)
        total = via.max(axis=1) + strength[i]
    chosen = np.empty(len(strength), np.intp)
    chosen[-1] = total.argmax()
    for i in range(len(strength) - 1, 0, -1):
        chosen[i - 1] = came_from[i, chosen[i]]
    choices = np.column_stack([np.full(len(octave), np.nan, np.float32), found.f0_hz])
    f0_hz: NDArray[np.float32] = choices[np.arange(len(chosen)), chosen]
    return f0_hz
