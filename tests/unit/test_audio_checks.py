from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import butter, sosfilt

from deployments.audio_checks import FAINT_PEAK, LOUD_PEAK, QUIET_PEAK, amplified, is_quiet, is_steady, is_tonal
from deployments.types import SAMPLE_RATE_HZ, Audio
from tests.support.alignment_clips import clips

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


def melody(notes_hz: tuple[float, ...], partials: int, vibrato: float) -> np.ndarray:
    """Plucked tones, two a second."""
    hz = np.array(notes_hz)[(TIMES_S * 2).astype(int) % len(notes_hz)]
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ + vibrato * np.sin(2 * np.pi * 5.5 * TIMES_S)
    tones = sum(np.sin(n * phase) / n for n in range(1, partials + 1))
    return 4000 * np.asarray(tones) * np.exp(-4 * (TIMES_S * 2 % 1))


TONES = {
    "siren": 9000 * np.sin(2 * np.pi * np.cumsum(700 + 300 * np.sin(np.pi * TIMES_S)) / SAMPLE_RATE_HZ),
    "sweep": 9000 * np.sin(2 * np.pi * (200 * TIMES_S + 300 * TIMES_S**2)),
    "beeps": 8000 * np.sin(2 * np.pi * 1000 * TIMES_S) * (TIMES_S * 2 % 1 < 0.8),
    "dialled": 4000
    * (np.sin(2 * np.pi * 770 * TIMES_S) + np.sin(2 * np.pi * 1336 * TIMES_S))
    * (TIMES_S * 3 % 1 < 0.5),
    "melody": melody((220, 277, 330, 440), partials=5, vibrato=0.0),
    "vibrato": melody((247, 294, 370), partials=8, vibrato=0.3),
    "deep": melody((110, 131, 165), partials=8, vibrato=0.0),
}


@pytest.mark.parametrize("name", TONES)
def test_tones_are_told_from_speech(name: str) -> None:
    """Sirens, beeps and electronic melodies, whole or half a second of them; no longer under audible noise."""
    assert is_tonal(audio(TONES[name]))
    assert is_tonal(audio(TONES[name][: SAMPLE_RATE_HZ // 2]))
    assert not is_tonal(audio(TONES[name] + RANDOM.normal(scale=200, size=TIMES_S.size)))


def test_no_word_is_a_tone() -> None:
    """Not one of 150 words of six synthesized voices, each by itself, nor what a telephone would leave of them."""
    band = butter(8, [300, 3400], "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    for clip in clips():
        telephone = audio(sosfilt(band, clip.audio))
        for word in (word for utterance in clip.truth for word in utterance.words):
            assert not is_tonal(word.of(clip.audio)), (clip.name, word)
            assert not is_tonal(word.of(telephone)), (clip.name, word)


def test_nothing_and_silence_are_no_tones() -> None:
    """Audio shorter than a frame is not judged; silence and noise have no partials."""
    assert not is_tonal(audio(np.zeros(1000)))
    assert not is_tonal(audio(np.zeros(SAMPLE_RATE_HZ)))
    assert not is_tonal(audio(RANDOM.normal(scale=3000, size=SAMPLE_RATE_HZ)))


def test_faint_sound_is_made_louder_and_no_other() -> None:
    """By a whole number, so that the form stays to the bit; the loudest sample never clips."""
    faint = audio(FAINT_PEAK * np.sin(2 * np.pi * 200 * TIMES_S))
    faint.flags.writeable = False
    louder = amplified(faint)
    assert louder.dtype == np.int16
    assert LOUD_PEAK - FAINT_PEAK < louder.max() <= LOUD_PEAK
    assert (louder == faint.astype(int) * (louder.max() // faint.max())).all()
    for same in (audio(np.array([FAINT_PEAK + 1])), audio(np.zeros(5)), audio(np.zeros(0)), audio(np.array([-32768]))):
        assert amplified(same) is same
