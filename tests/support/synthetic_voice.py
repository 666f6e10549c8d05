"""A voice made of pulses and resonances, whose level, pitch and tempo are given: for moods that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.random import Generator

    from deployments.types import Audio

FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""Of five vowels: Peterson and Barney 1952."""
BANDWIDTH_HZ = 90
NOISE_DBFS = -60


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """Ranges that a clip's level (RMS), mean pitch and tempo are drawn from."""

    level_dbfs: tuple[float, float]
    f0_hz: tuple[float, float]
    syllables_per_s: tuple[float, float]


MANNERS = {
    "sad": Manner(level_dbfs=(-42, -36), f0_hz=(85, 115), syllables_per_s=(2.0, 2.8)),
    "neu": Manner(level_dbfs=(-30, -24), f0_hz=(130, 170), syllables_per_s=(3.6, 4.6)),
    "ang": Manner(level_dbfs=(-18, -12), f0_hz=(210, 300), syllables_per_s=(5.6, 7.5)),
}
"""Soft, low and slow; in between; loud, high and fast."""


def speak(draw: Generator, manner: Manner, duration_s: float) -> Audio:
    """A clip, int16 at 16 kHz."""
    count = round(duration_s * SAMPLE_RATE_HZ)
    seconds = np.arange(count) / SAMPLE_RATE_HZ
    f0_hz = draw.uniform(*manner.f0_hz) * 2 ** (0.1 * np.sin(2 * np.pi * draw.uniform(0.3, 1) * seconds))
    pulses = np.diff(np.floor(np.cumsum(f0_hz) / SAMPLE_RATE_HZ + draw.uniform()), prepend=0.0)
    pulses[0] = 0.0
    tempo = draw.uniform(*manner.syllables_per_s)
    sound = resonating(pulses, FORMANTS_HZ[draw.integers(len(FORMANTS_HZ))])
    sound *= 0.02 + np.sin(np.pi * (tempo * seconds + draw.uniform())) ** 2
    sound *= 10 ** (draw.uniform(*manner.level_dbfs) / 20) / np.sqrt(np.mean(sound**2))
    sound += draw.normal(size=count) * 10 ** (NOISE_DBFS / 20)
    return np.asarray(np.clip(sound * 2**15, -(2**15), 2**15 - 1), np.int16)


def resonating(source: np.ndarray, formants_hz: tuple[float, ...]) -> np.ndarray:
    """`source` through a resonance at each of `formants_hz`."""
    radius = np.exp(-np.pi * BANDWIDTH_HZ / SAMPLE_RATE_HZ)
    for formant_hz in formants_hz:
        angle = 2 * np.pi * formant_hz / SAMPLE_RATE_HZ
        source = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], source)
    return source
