"""Talk of any length in words that the small models of tests/models know: tests/data/alignment, drawn again.

Synthesized by flite and espeak-ng (the committed clips; neither program is needed). Sentences come back, voices take
turns, and no sentence was in the models' training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.types import SAMPLE_RATE_HZ
from tests.support.alignment_clips import clips

if TYPE_CHECKING:
    from deployments.types import Audio

VOICES = ("flite_slt", "flite_awb", "espeak_max")
"""Two that the small models know and one that the recogniser and the aligner never heard."""
PAUSE_S = (0.0, 0.4)
"""Beside the quarter of a second that each sentence has on either side."""
SEED = 2026


def known_talk(duration_s: float) -> Audio:
    """As many sentences as fit into `duration_s`."""
    said = [each.of(clip.audio) for clip in clips() if clip.name in VOICES for each in clip.truth]
    draw = np.random.default_rng(SEED)
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    at = 0
    while True:
        for number in draw.permutation(len(said)):
            samples = said[number]
            if at + len(samples) > len(audio):
                return audio
            audio[at : at + len(samples)] = samples
            at += len(samples) + round(draw.uniform(*PAUSE_S) * SAMPLE_RATE_HZ)
