"""What can be told of audio without a model: whether it can hold speech at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from deployments.types import Audio

QUIET_PEAK: Final = 16
"""Audio that never leaves ±16 of 32768 (-66 dBFS) holds no speech."""
STEADY_DB: Final = 0.6
"""Speech rises and falls by far more than this (standard deviation of the level); a tone, a hum or noise does not."""
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
    return bool(level_db.std() < STEADY_DB)
