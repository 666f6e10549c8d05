"""What can be told of audio without a model: whether it can hold speech at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from deployments.types import Audio

QUIET_PEAK: Final = 16
"""Audio that never leaves ±16 of 32768 (-66 dBFS) holds no speech."""
STEADY_DB: Final = 3.0
"""Between its loudest and its quietest 20 ms, white noise stays within 2.5 dB and a tone within 1; speech spans 18 and
more, and still 4 under noise that is 5 dB louder than it (measured on tests/data/speech and examples/media)."""
STEADY_FRAME: Final = SAMPLE_RATE_HZ // 50
STEADY_FRAMES: Final = 50
"""A second: shorter than that, a held vowel may be as steady."""


def is_quiet(audio: Audio) -> bool:
    """Whether `audio` is silent, or nearly so."""
    return int(np.abs(audio.astype(np.int32)).max(initial=0)) <= QUIET_PEAK


def is_steady(audio: Audio) -> bool:
    """Whether `audio` is at least a second long and stays as loud as it is, as no speech does."""
    frames = audio[: len(audio) // STEADY_FRAME * STEADY_FRAME].astype(np.float32).reshape(-1, STEADY_FRAME)
    if len(frames) < STEADY_FRAMES:
        return False
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-6)
    return float(np.ptp(level_db)) < STEADY_DB
