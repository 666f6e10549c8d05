"""A second opinion on pitch from a neural network: SwiftF0, whose weights (0.1 MB) are in its package.

L. Nieradzik, "SwiftF0: Fast and Accurate Monophonic Pitch Detection" (2025), arXiv:2508.18440. It finds the octave
of a voice without a fundamental, and whether a periodic sound is a voice. Its F0 is less precise and comes every 16 ms.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from swift_f0 import SwiftF0

FULL_LEVEL = 0.5
"""Peak that loud frames are scaled to: the network was trained on recordings at full level and misses soft voices."""
MARGIN = 1.06
"""The network's range exceeds ours by this factor, since it does not find a pitch at the very edge of its range."""


class Opinion(NamedTuple):
    """The network's answer for each frame.

    `f0_hz`: shape (frames,), float32. `confidence`: shape (frames,), float32, 0-1, that the frame is voiced and `f0_hz`
    is right; 0.5 is its calibrated threshold.
    """

    f0_hz: NDArray[np.float32]
    confidence: NDArray[np.float32]


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
