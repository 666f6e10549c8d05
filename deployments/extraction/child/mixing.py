"""Mixes any number of channels to one, so that what somebody hears survives, at the level at which he hears it.

A plain mean loses speech that lies in one channel of many, and all of it where two channels are out of phase. Here the
channels are added with the sign that aligns them with the loudest one, and the sum gets the power of the loudest
channel: an "energy-preserving downmix" as in parametric stereo (Breebaart and Faller, Spatial Audio Processing, 2007).
Weights are chosen for a second of sound at a time and faded into each other. The low-frequency channel (LFE) is left
out where another one has sound (ITU-R BS.775).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Channels by samples, full scale is 1."""

OPPOSED = -0.5
"""A channel whose correlation with the loudest is lower is out of phase."""
ALIGNED = -0.2
"""One that was out of phase is so until its correlation is higher than this."""
DECAY = 0.5
"""What a second of sound counts for the weights of the one after it."""
FADE_S = 0.05
SILENT_POWER = 1e-10
"""-100 dBFS."""
AUDIBLE = 0.01
"""The power of a channel that could cancel another one, as a share of the loudest one's."""
CLIPPED = 0.9995
"""Samples from here on have reached full scale."""
CLIPPED_IN_A_ROW = 3


class Mixer:
    """Mixes the blocks of a track, one after the other. `lfe`: the number of the low-frequency channel, if any."""

    def __init__(self, channels: int, *, lfe: int | None = None) -> None:
        self._lfe = lfe
        self._covariance = np.zeros((channels, channels))
        self._signs = np.ones(channels)
        self._weights: NDArray[np.float64] | None = None
        self.opposed = False
        """Whether channels of the latest block were out of phase."""

    def mix(self, block: Samples, rate_hz: int) -> NDArray[np.float32]:
        """Return the mix of a block of about a second."""
        if len(block) == 1:
            mono: NDArray[np.float32] = block[0]
            return mono
        self._covariance = DECAY * self._covariance + block.astype(np.float64) @ block.T / max(1, block.shape[1])
        weights = self._choose()
        before = weights if self._weights is None else self._weights
        if before @ weights < 0:  # the same sound with the other sign: no fade through silence
            weights = -weights
        mixed = weights.astype(np.float32) @ block
        fade = min(block.shape[1], round(FADE_S * rate_hz))
        if not np.allclose(before, weights):
            rise = np.linspace(0, 1, fade, endpoint=False, dtype=np.float32)
            mixed[:fade] = rise * mixed[:fade] + (1 - rise) * (before.astype(np.float32) @ block[:, :fade])
        self._weights = weights
        return mixed

    def _choose(self) -> NDArray[np.float64]:
        powers = np.diag(self._covariance).copy()
        if self._lfe is not None and np.delete(powers, self._lfe).max(initial=0.0) > SILENT_POWER:
            powers[self._lfe] = 0.0
        loudest = int(powers.argmax())
        if powers[loudest] <= SILENT_POWER:
            self.opposed = False
            return np.ones(len(powers)) if self._weights is None else self._weights
        scale = np.sqrt(powers[loudest] * np.maximum(powers, SILENT_POWER))
        correlation = self._covariance[loudest] / scale * self._signs[loudest]
        self._signs = np.where(correlation < np.where(self._signs < 0, ALIGNED, OPPOSED), -1.0, 1.0)
        self.opposed = len(set(self._signs[powers > AUDIBLE * powers[loudest]])) > 1
        signs = np.where(powers > 0, self._signs, 0.0)
        together = signs @ self._covariance @ signs
        gain = float(np.sqrt(powers[loudest] / max(together, powers[loudest] / len(powers))))
        weights: NDArray[np.float64] = signs * gain
        return weights


class Apart:
    """Stands in the mixer's place where channels are kept apart: `channels` come out, whatever comes in.

    Where the number changes within a track, the first channels are those that were there, and missing ones are silent.
    """

    opposed = False

    def __init__(self, channels: int) -> None:
        self._channels = channels

    def mix(self, block: Samples, _rate_hz: int) -> NDArray[np.float32]:
        """Return the block, shape (samples, channels)."""
        apart = np.zeros((block.shape[1], self._channels), np.float32)
        apart[:, : len(block)] = block[: self._channels].T
        return apart


def clipped_share(block: Samples) -> float:
    """Return the share of a block's samples that are in a row of `CLIPPED_IN_A_ROW` or more at full scale."""
    full = np.abs(block) >= CLIPPED
    if full.shape[1] < CLIPPED_IN_A_ROW or not full.any():
        return 0.0
    rows = full[:, 2:] & full[:, 1:-1] & full[:, :-2]
    return float(rows.any(axis=0).mean())
