"""Sound that nobody speaks in, and speech that is hard to hear: made on the spot, the same each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from deployments.types import SAMPLE_RATE_HZ, Audio, Span
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPEECH = ROOT / "tests" / "data" / "speech"
TEXTS: dict[str, str] = {
    name.removesuffix(".ogg"): told["text"] for name, told in json.loads((SPEECH / "texts.json").read_text()).items()
}


def speech(name: str) -> Audio:
    """A clip of tests/data/speech, whose words are `TEXTS[name]`."""
    return np.asarray(soundfile.read(SPEECH / f"{name}.ogg", dtype="int16")[0])


def louder(audio: Audio, gain_db: float) -> Audio:
    """`audio` with another level: clipped where it does not fit, with few bits left where it is quiet."""
    return as_int16(audio * 10 ** (gain_db / 20))


def in_a_row(*parts: Audio, pause_s: float = 0.6) -> Audio:
    """The parts with silence before, between and behind them."""
    pause = np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.int16)
    return np.concatenate([pause, *(each for part in parts for each in (part, pause))])


def in_turn(turns: Sequence[Audio], pause_s: float) -> tuple[Audio, list[Span]]:
    """The turns with a pause before each and after the last, and the span of each."""
    ends_s = np.cumsum([pause_s + len(each) / SAMPLE_RATE_HZ for each in turns])
    spans = [
        Span(start_s=float(end_s) - len(each) / SAMPLE_RATE_HZ, end_s=float(end_s))
        for each, end_s in zip(turns, ends_s, strict=True)
    ]
    return in_a_row(*turns, pause_s=pause_s), spans


def noise(duration_s: float, *, slope: float = 0.0) -> Audio:
    """Noise at -20 dBFS: white, or falling with frequency (0.5 pink, 1 brown)."""
    count = round(duration_s * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** slope
    sound = np.fft.irfft(spectrum, count)
    return as_int16(3277 * sound / np.std(sound))


def syllables_of_noise(duration_s: float) -> Audio:
    """Noise that rises and falls four times a second, as speech does."""
    sound = noise(duration_s, slope=0.5)
    return as_int16(sound * (0.02 + np.sin(np.pi * 4 * seconds(duration_s)) ** 2))


def chord(duration_s: float) -> Audio:
    return as_int16(sum(3000 * np.sin(2 * np.pi * hz * seconds(duration_s)) for hz in (220, 277, 330)))


def melody(duration_s: float) -> Audio:
    """Plucked notes with ten partials, five a second."""
    at_s = seconds(duration_s)
    notes = np.random.default_rng(1).choice([0, 2, 4, 5, 7, 9, 11, 12], size=round(duration_s * 5) + 1)
    hz = 220 * 2 ** (notes[(at_s * 5).astype(int)] / 12)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    return as_int16(3000 * sum(np.sin(n * phase) / n for n in range(1, 11)) * np.exp(-4 * (at_s * 5 % 1)))


def siren(duration_s: float) -> Audio:
    """One tone that goes up and down."""
    hz = 700 + 300 * np.sin(np.pi * seconds(duration_s))
    return as_int16(9000 * np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ))


def seconds(duration_s: float) -> np.ndarray:
    """The time of each sample."""
    return np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def as_int16(samples: np.ndarray) -> Audio:
    """Rounded, and clipped where it does not fit."""
    return np.clip(np.round(samples), -32768, 32767).astype(np.int16)


def written(path: Path, audio: Audio) -> Path:
    soundfile.write(path, audio, SAMPLE_RATE_HZ)
    return path
