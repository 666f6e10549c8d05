"""Talk of any length, drawn from the synthesized recordings of the tests: voices take turns, sentences come back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from deployments.types import SAMPLE_RATE_HZ
from tests.support.alignment_clips import clips

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deployments.types import Audio

DIALOGUES = Path(__file__).parents[1] / "data" / "dialogues"
VOICES = ("hts", "awb_light", "mike")
"""Of the dialogues that no setting was chosen on."""
PAUSE_S = (0.2, 0.5)
KNOWN_VOICES = ("flite_slt", "flite_awb", "espeak_max")
"""Two that the small models know and one that the recogniser and the aligner never heard."""
KNOWN_PAUSE_S = (0.0, 0.4)
"""Beside the quarter of a second that each sentence has on either side."""
SEED = 2026


def dense_talk(duration_s: float) -> Audio:
    """Three voices of the dialogues, without long pauses."""
    return _drawn(list(turns()), duration_s, PAUSE_S)


def known_talk(duration_s: float) -> Audio:
    """Sentences of tests/data/alignment: their words are those that the small models of tests/models know."""
    said = [each.of(clip.audio) for clip in clips() if clip.name in KNOWN_VOICES for each in clip.truth]
    return _drawn(said, duration_s, KNOWN_PAUSE_S)


def _drawn(said: Sequence[Audio], duration_s: float, pause_s: tuple[float, float]) -> Audio:
    """All of `said` in a new random order again and again, until `duration_s` are full."""
    draw = np.random.default_rng(SEED)
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    at = 0
    while True:
        for number in draw.permutation(len(said)):
            at += round(draw.uniform(*pause_s) * SAMPLE_RATE_HZ)
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
