from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from deployments.transcriber.sound import QUIET_PEAK, is_quiet, is_steady
from deployments.types import SAMPLE_RATE_HZ, Audio

SPEECH = Path(__file__).parents[1] / "data" / "speech"
TIMES_S = np.arange(5 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
RANDOM = np.random.default_rng(0)


def audio(samples: np.ndarray) -> Audio:
    return np.clip(samples, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize(
    "samples",
    [
        8000 * np.sin(2 * np.pi * 50 * TIMES_S),
        8000 * np.sin(2 * np.pi * 440 * TIMES_S),
        sum(3000 * np.sin(2 * np.pi * hz * TIMES_S) for hz in (220, 277, 330)),
        RANDOM.normal(scale=3000, size=TIMES_S.size),
        RANDOM.normal(scale=40, size=TIMES_S.size),
        np.full(TIMES_S.size, 5000.0),
        32767 * np.sign(np.sin(2 * np.pi * 100 * TIMES_S)),
    ],
    ids=["mains hum", "tone", "chord", "noise", "hiss", "offset", "square"],
)
def test_what_stays_as_loud_as_it_is_holds_no_speech(samples: np.ndarray) -> None:
    """Tones, chords and noise are told from speech without a model."""
    assert is_steady(audio(samples))


@pytest.mark.parametrize("path", sorted(SPEECH.glob("*.ogg")), ids=lambda path: path.stem)
def test_speech_is_never_steady(path: Path) -> None:
    """Neither clean, nor clipped to pieces, nor in noise as loud as itself or 5 dB louder, nor 40 dB too quiet."""
    speech = soundfile.read(path, dtype="int16")[0].astype(float)
    noise = RANDOM.normal(scale=np.sqrt(np.mean(speech**2)), size=len(speech))
    for samples in (speech, speech * 50, speech + noise, speech + 1.78 * noise, speech / 100):
        assert not is_steady(audio(samples))
    assert not is_quiet(audio(speech / 100))


def test_too_short_to_tell() -> None:
    """A held vowel of less than a second may be steady and is heard all the same."""
    assert not is_steady(audio(8000 * np.sin(2 * np.pi * 150 * TIMES_S[: SAMPLE_RATE_HZ * 9 // 10])))
    assert not is_steady(audio(np.zeros(0)))


def test_quiet() -> None:
    """Nothing, silence and the last bits are quiet; one bit more is not, and the most negative sample does not wrap."""
    assert is_quiet(audio(np.zeros(0)))
    assert is_quiet(audio(np.array([QUIET_PEAK, -QUIET_PEAK])))
    assert not is_quiet(audio(np.array([QUIET_PEAK + 1])))
    assert not is_quiet(audio(np.array([-32768])))
