"""What can be found out about audio without a model: whether it can hold speech, and whether to amplify it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from deployments.types import Audio

QUIET_PEAK: Final = 6
"""Audio that stays within ±6 of 32768 (-75 dBFS) has too few bits for words. Amplified from a peak of 8, four of six
test sentences are fully right, from 6 three, from 4 one (measured on tests/data/speech)."""
FAINT_PEAK: Final = 327
"""-40 dBFS: in fainter audio Whisper begins to lose words."""
LOUD_PEAK: Final = 8192
"""-12 dBFS: the peak that faint audio is amplified to."""

STEADY_DB: Final = 3.0
"""Range between the loudest and the quietest 20 ms: up to 2.5 dB in white noise, 1 in a tone, 18 and more in speech,
still 4 in speech under noise that is 5 dB louder (measured on tests/data/speech and examples/media)."""
STEADY_FRAME: Final = SAMPLE_RATE_HZ // 50
STEADY_FRAMES: Final = 50
"""A second: a held vowel may be as steady for a shorter time."""

TONAL_DB: Final = -45.0
"""Spectral flatness: a voice has breath between its harmonics, and single words come down to -38 (median of their
frames, synthesized voices of tests/data/alignment); sirens, sweeps and electronic melodies lie at -47 to -83."""
TONAL_FRAME: Final = 1024
TONAL_BAND_HZ: Final = (100.0, 3400.0)
"""The telephone band: what a channel cut off must not count as a gap between partials."""
TONAL_RANGE_DB: Final = 30.0
"""Frames that are more than this below the loudest one are gaps between tones and are ignored."""


def is_quiet(audio: Audio) -> bool:
    """Return whether `audio` is silent or nearly silent."""
    return _peak(audio) <= QUIET_PEAK


def is_steady(audio: Audio) -> bool:
    """Return whether `audio` is at least a second long and has a constant level, unlike speech."""
    frames = audio[: len(audio) // STEADY_FRAME * STEADY_FRAME].astype(np.float32).reshape(-1, STEADY_FRAME)
    if len(frames) < STEADY_FRAMES:
        return False
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-6)
    return float(np.ptp(level_db)) < STEADY_DB


def is_tonal(audio: Audio) -> bool:
    """Return whether `audio` consists of pure tones: beeps, sirens, electronic melodies.

    It does not recognise music that was recorded in a room, nor tones under audible noise.
    """
    if len(audio) < TONAL_FRAME:
        return False
    frames = np.lib.stride_tricks.sliding_window_view(audio, TONAL_FRAME)[:: TONAL_FRAME // 2]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(TONAL_FRAME).astype(np.float32), axis=1)) ** 2
    low, high = (round(hz * TONAL_FRAME / SAMPLE_RATE_HZ) for hz in TONAL_BAND_HZ)
    power = spectrum[:, low:high] + 1.0  # less than the noise of rounding to 16 bits
    mean = power.mean(axis=1)
    flatness_db = 10 * (np.log10(power).mean(axis=1) - np.log10(mean))
    loud = mean >= mean.max() * 10 ** (-TONAL_RANGE_DB / 10)
    return float(np.median(flatness_db[loud])) < TONAL_DB


def amplified(audio: Audio) -> Audio:
    """Return `audio` multiplied by a whole number where all of it is faint, else the same array.

    Speech that was recorded 60 dB too quiet may still have every word.
    """
    peak = _peak(audio)
    return audio * np.int16(LOUD_PEAK // peak) if 0 < peak <= FAINT_PEAK else audio


def _peak(audio: Audio) -> int:
    """Return the largest absolute sample, without copying the audio, which may have 115 MB."""
    return max(int(audio.max(initial=0)), -int(audio.min(initial=0)))
