"""Talk of any length between three voices, without long pauses, from the synthesized dialogues of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.types import Audio

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"
VOICES = ("hts", "awb_light", "mike")
"""Of the dialogues that no setting was chosen on."""
PAUSE_S = (0.2, 0.5)
SEED = 2026


def dense_talk(duration_s: float) -> Audio:
    """All turns of the voices in a new random order again and again, until `duration_s` are full."""
    draw = np.random.default_rng(SEED)
    said = list(turns())
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    at = 0
    while True:
        for number in draw.permutation(len(said)):
            at += round(draw.uniform(*PAUSE_S) * SAMPLE_RATE_HZ)
            turn = said[number]
            if at + len(turn) > len(audio):
                return audio
            audio[at : at + len(turn)] = turn
            at += len(turn)


def turns() -> Iterator[Audio]:
    """The turns of the voices in all dialogues."""
    for path in sorted(DIALOGUES.glob("held_*.ogg")):
        samples, rate_hz = soundfile.read(path, dtype="int16")
        assert rate_hz == SAMPLE_RATE_HZ
        for line in path.with_suffix(".rttm").read_text().splitlines():
            _, _, _, start_s, duration_s, _, _, voice, *_ = line.split()
            if voice in VOICES:
                first = round(float(start_s) * rate_hz)
                yield samples[first : first + round(float(duration_s) * rate_hz)]
