"""What can be told of audio without a model: whether it can hold speech, and whether it has to be made louder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from deployments.types import Audio

QUIET_PEAK: Final = 6
"""Audio that never leaves ±6 of 32768 (-75 dBFS) has too few bits left for words: with 8, made louder, four of six test
sentences are wholly right, with 6 three, with 4 one (measured on tests/data/speech)."""
FAINT_PEAK: Final = 327
"""-40 dBFS: Whisper begins to lose words in what is fainter."""
LOUD_PEAK: Final = 8192
"""Where faint sound is brought to: -12 dBFS."""

STEADY_DB: Final = 3.0
"""Between its loudest and its quietest 20 ms, white noise stays within 2.5 dB and a tone within 1; speech spans 18 and
more, and still 4 under noise that is 5 dB louder than it (measured on tests/data/speech and examples/media)."""
STEADY_FRAME: Final = SAMPLE_RATE_HZ // 50
STEADY_FRAMES: Final = 50
"""A second: shorter than that, a held vowel may be as steady."""

TONAL_DB: Final = -45.0
"""Spectral flatness: a voice has breath between its harmonics, and single words come down to -38 (median of their
frames, synthesized voices of tests/data/alignment); sirens, sweeps and electronic melodies lie at -47 to -83."""
TONAL_FRAME: Final = 1024
TONAL_BAND_HZ: Final = (100.0, 3400.0)
"""The telephone's: what was cut off by a channel must not count as a gap between partials."""
TONAL_RANGE_DB: Final = 30.0
"""Frames quieter than this below the loudest are the gaps between tones."""


def is_quiet(audio: Audio) -> bool:
    """Whether `audio` is silent, or nearly so."""
    return _peak(audio) <= QUIET_PEAK


def is_steady(audio: Audio) -> bool:
    """Whether `audio` is at least a second long and stays as loud as it is, as no speech does."""
    frames = audio[: len(audio) // STEADY_FRAME * STEADY_FRAME].astype(np.float32).reshape(-1, STEADY_FRAME)
    if len(frames) < STEADY_FRAMES:
        return False
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-6)
    return float(np.ptp(level_db)) < STEADY_DB


def is_tonal(audio: Audio) -> bool:
    """Whether `audio` is made of pure tones, with next to nothing between them: beeps, sirens, electronic melodies.

    Music that was played in a room is not found by this, nor are tones under audible noise.
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


def audible(audio: Audio) -> Audio:
    """`audio`, made louder by a whole number where all of it is faint: 60 dB too quiet, it may hold every word.

    The same array where it is not.
    """
    peak = _peak(audio)
    return audio * np.int16(LOUD_PEAK // peak) if 0 < peak <= FAINT_PEAK else audio


def _peak(audio: Audio) -> int:
    """Without a copy: a video's audio may be 115 MB."""
    return max(int(audio.max(initial=0)), -int(audio.min(initial=0)))
