"""Audio whose F0 is known exactly, frame by frame, and the scores of a tracker against it. For tests and the bench.

Speech: WORLD (pyworld) takes real or flite's speech apart; the F0 contour is scaled to a chosen median and the parts
are put together again, so voiced and unvoiced frames and their F0 are known by construction and not by another tracker.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyworld
import scipy.signal
import scipy.stats
import soundfile

from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from deployments.types import Audio

SPEECH = Path(__file__).parent / "prosody_speech"
HELD_OUT = Path(__file__).parents[1] / "data" / "held_out"
HOP = SAMPLE_RATE_HZ // FRAMES_PER_S
GROSS = 0.2
"""A frame's error is gross when it is more than this part of the true F0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Audio and its true F0: shape (frames,), Hz, NaN where unvoiced; frame i is centred at i / FRAMES_PER_S."""

    name: str
    audio: Audio
    f0_hz: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of a tracker, pooled over frames, as parts of one. NaN: no such frame.

    `gross` (gross pitch error, GPE): of the frames voiced in both, those whose F0 is off by more than `GROSS`.
    `voicing` (voicing decision error, VDE): of all frames, those judged wrongly. `precision`: of the frames found
    voiced, those that are so. `recall`: of the voiced frames, those found. `cents`: median absolute error over the
    frames voiced in both and not gross. `harmonic_mean`: that of SwiftF0's authors (pitch-benchmark, 2025), over raw
    pitch accuracy (within 50 cents), exp(-mean cents / 500), recall, precision, exp(-10 octave errors) and
    exp(-5 errors over 200 cents).
    """

    gross: float
    voicing: float
    precision: float
    recall: float
    cents: float
    harmonic_mean: float


def score(found_hz: NDArray[np.floating], true_hz: NDArray[np.floating]) -> Score:
    """Compare two contours of one length."""
    found, true = np.isfinite(found_hz), np.isfinite(true_hz)
    both = found & true
    ratio = found_hz[both] / true_hz[both]
    off_cents = np.abs(1200 * np.log2(ratio))
    is_gross = np.abs(ratio - 1) > GROSS
    precision, recall = (_part(both.sum(), of.sum()) for of in (found, true))
    return Score(
        gross=_part(is_gross.sum(), both.sum()),
        voicing=float((found != true).mean()),
        precision=precision,
        recall=recall,
        cents=float(np.median(off_cents[~is_gross])) if (~is_gross).any() else np.nan,
        harmonic_mean=_harmonic_mean(off_cents, precision, recall) if both.any() else np.nan,
    )


def _part(count: int, of: int) -> float:
    return float(count / of) if of else np.nan


def _harmonic_mean(off_cents: NDArray[np.floating], precision: float, recall: float) -> float:
    octaves = np.round(off_cents / 1200)
    is_octave = (octaves >= 1) & (np.abs(off_cents - 1200 * octaves) < 100)
    six = [
        np.mean(off_cents < 50),
        np.exp(-np.mean(off_cents) / 500),
        recall,
        precision,
        np.exp(-10 * np.mean(is_octave)),
        np.exp(-5 * np.mean(off_cents > 200)),
    ]
    return float(scipy.stats.hmean(np.maximum(six, 1e-6)))


def to_audio(samples: NDArray[np.floating], *, peak: float = 0.5) -> Audio:
    """Any float samples as int16 with the given peak of full scale."""
    return np.round(samples * (peak * 32767 / np.abs(samples).max())).astype(np.int16)


def frames_of(audio: Audio) -> int:
    """How many frames are centred inside the audio."""
    return -(-audio.size // HOP)


# -- tones ------------------------------------------------------------------------------------------------------------


def voice(f0_hz: NDArray[np.floating], *, harmonics: int) -> Audio:
    """A contour given per sample as sound: `harmonics` partials (1: a sine) falling with 1/n, up to 7.5 kHz."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / SAMPLE_RATE_HZ
    return to_audio(sum(np.sin(n * phase) / n * (n * f0_hz < 7500) for n in range(1, harmonics + 1)))


def tone(f0_hz: float, duration_s: float = 1.0, *, harmonics: int = 1) -> Known:
    """A steady tone."""
    audio = voice(np.full(round(duration_s * SAMPLE_RATE_HZ), float(f0_hz)), harmonics=harmonics)
    return Known(name=f"tone {f0_hz:.0f} Hz", audio=audio, f0_hz=np.full(frames_of(audio), float(f0_hz)))


def tones(*, harmonics: int) -> Known:
    """Steady tones over the whole range, 60 to 1000 Hz, half a second each with silence between."""
    parts = []
    for f0_hz in np.geomspace(60, 1000, 15):
        parts.append(tone(f0_hz, 0.5, harmonics=harmonics))
        parts.append(Known(name="pause", audio=np.zeros(3200, np.int16), f0_hz=np.full(20, np.nan)))
    return Known(
        name="pure tones 60-1000 Hz" if harmonics == 1 else "sawtooths 60-1000 Hz",
        audio=np.concatenate([part.audio for part in parts]),
        f0_hz=np.concatenate([part.f0_hz for part in parts]),
    )


def vibrato(centre_hz: float, *, rate_hz: float = 5.5, depth: float = 0.06, duration_s: float = 2.0) -> Known:
    """A sung note: F0 swings by `depth` (0.06: a semitone) each way."""
    times_s = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    f0_hz = centre_hz * (1 + depth * np.sin(2 * np.pi * rate_hz * times_s))
    return Known(name=f"vibrato {centre_hz:.0f} Hz", audio=voice(f0_hz, harmonics=20), f0_hz=f0_hz[::HOP])


def silence(duration_s: float = 5.0) -> Known:
    """Digital silence."""
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    return Known(name="silence", audio=audio, f0_hz=np.full(frames_of(audio), np.nan))


def white_noise(duration_s: float = 5.0) -> Known:
    """Noise at -20 dBFS: nothing in it is voiced."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(duration_s * SAMPLE_RATE_HZ))
    audio = np.round(samples * 32767).astype(np.int16)
    return Known(name="white noise", audio=audio, f0_hz=np.full(frames_of(audio), np.nan))


# -- speech -----------------------------------------------------------------------------------------------------------


def real_call() -> Audio:
    """The first half of the real telephone conversation that pyannote.audio ships, 15 s."""
    folder = importlib.util.find_spec("pyannote.audio").submodule_search_locations[0]
    return soundfile.read(Path(folder) / "sample" / "sample.wav", dtype="int16", stop=15 * SAMPLE_RATE_HZ)[0]


def man() -> Audio:
    """A man, 10 s, wide-band."""
    return soundfile.read(SPEECH / "rms.ogg", dtype="int16")[0]


def woman() -> Audio:
    """A woman, 8 s, wide-band."""
    return soundfile.read(SPEECH / "slt.ogg", dtype="int16")[0]


def deep_man() -> Audio:
    """A deep man with a creaky voice, the first 12 s of a held-out recording."""
    return soundfile.read(HELD_OUT / "heard_kal16.ogg", dtype="int16", stop=12 * SAMPLE_RATE_HZ)[0]


@functools.cache
def _analysed(source: Callable[[], Audio]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """F0 with 0 where unvoiced, spectral envelope, aperiodicity; frames too noisy or too soft are made unvoiced."""
    samples = source().astype(np.float64) / 32768
    rough_hz, times_s = pyworld.dio(samples, SAMPLE_RATE_HZ, f0_floor=60, f0_ceil=500, frame_period=1000 / FRAMES_PER_S)
    f0_hz = pyworld.stonemask(samples, rough_hz, times_s, SAMPLE_RATE_HZ)
    envelope = pyworld.cheaptrick(samples, f0_hz, times_s, SAMPLE_RATE_HZ)
    aperiodicity = pyworld.d4c(samples, f0_hz, times_s, SAMPLE_RATE_HZ)
    below_1_khz = slice(0, envelope.shape[1] // 8)
    level_db = 10 * np.log10(envelope.mean(axis=1))
    is_voiced = (np.median(aperiodicity[:, below_1_khz], axis=1) < 0.5) & (level_db > level_db.max() - 45)
    return np.where(is_voiced, f0_hz, 0), envelope, aperiodicity


VOICES: dict[str, tuple[Callable[[], Audio], float]] = {
    "deep man 80 Hz": (deep_man, 80),
    "man 90 Hz": (man, 90),
    "man 125 Hz": (man, 125),
    "woman 200 Hz": (woman, 200),
    "woman 260 Hz": (woman, 260),
    "child 380 Hz": (woman, 380),
    "real call, 110 Hz": (real_call, 110),
    "real call, 180 Hz": (real_call, 180),
    "real call, 300 Hz": (real_call, 300),
}
"""Whose speech, and the median F0 that it is moved to."""


@functools.cache
def speech(name: str) -> Known:
    """One of `VOICES`: the speech with its own melody, around another median F0."""
    source, median_hz = VOICES[name]
    return remade(name, source, median_hz=median_hz)


def remade(name: str, source: Callable[[], Audio], *, median_hz: float | None = None) -> Known:
    """Speech put together again with its own melody, around its own median F0 or another."""
    f0_hz, envelope, aperiodicity = _analysed(source)
    own_hz = np.median(f0_hz[f0_hz > 0])
    f0_hz = f0_hz * ((median_hz or own_hz) / own_hz)
    f0_hz[f0_hz > 0] = np.clip(f0_hz[f0_hz > 0], 65, 800)
    samples = pyworld.synthesize(f0_hz, envelope, aperiodicity, SAMPLE_RATE_HZ, frame_period=1000 / FRAMES_PER_S)
    audio = to_audio(samples)
    true_hz = np.where(f0_hz > 0, f0_hz, np.nan)[: frames_of(audio)]
    return Known(name=name, audio=audio[: true_hz.size * HOP], f0_hz=true_hz)


# -- what a recording does to it --------------------------------------------------------------------------------------


def noisy(known: Known, *, snr_db: float) -> Known:
    """White noise added, `snr_db` below the whole signal's mean power."""
    samples = known.audio.astype(np.float64)
    noise = np.random.default_rng(1).normal(0, 1, samples.size)
    noise *= np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)
    audio = np.clip(np.round((samples + noise) / 2), -32768, 32767).astype(np.int16)
    return Known(name=f"{known.name}, {snr_db:.0f} dB SNR", audio=audio, f0_hz=known.f0_hz)


def clipped(known: Known, *, drive: float = 10.0) -> Known:
    """Overdriven: cut off at full scale."""
    audio = np.clip(known.audio * drive, -32768, 32767).astype(np.int16)
    return Known(name=f"{known.name}, clipped", audio=audio, f0_hz=known.f0_hz)


def quiet(known: Known, *, by_db: float = 60.0) -> Known:
    """Far too quiet: most of the 16 bits are lost."""
    audio = np.round(known.audio * 10 ** (-by_db / 20)).astype(np.int16)
    return Known(name=f"{known.name}, -{by_db:.0f} dB", audio=audio, f0_hz=known.f0_hz)


def telephone(known: Known) -> Known:
    """Only 300 to 3400 Hz left: a man's fundamental is gone."""
    band = scipy.signal.butter(6, (300, 3400), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    audio = to_audio(scipy.signal.sosfiltfilt(band, known.audio.astype(np.float64)))
    return Known(name=f"{known.name}, 300-3400 Hz", audio=audio, f0_hz=known.f0_hz)


def reverberant(known: Known, *, decay_s: float = 0.4) -> Known:
    """In a room: echoes that fall by 60 dB in `decay_s`, together half as strong as the direct sound."""
    count = round(decay_s * SAMPLE_RATE_HZ)
    room = np.random.default_rng(4).normal(0, 1, count) * 10 ** (-3 * np.arange(count) / count)
    room *= 0.7 / np.sqrt(np.sum(room**2))
    room[0] += 1
    audio = to_audio(scipy.signal.fftconvolve(known.audio.astype(np.float64), room)[: known.audio.size])
    return Known(name=f"{known.name}, in a room", audio=audio, f0_hz=known.f0_hz)


def among_others(known: Known, *, snr_db: float) -> Known:
    """Others talk all the time, six voices made of ours, `snr_db` below the whole signal's mean power."""
    samples = known.audio.astype(np.float64)
    crowd = np.zeros(samples.size)
    for shift_s, source in enumerate((man, woman, real_call) * 2):
        other = np.roll(np.resize(source(), samples.size), 3 * (shift_s + 1) * SAMPLE_RATE_HZ).astype(np.float64)
        crowd += other / np.sqrt(np.mean(other**2))
    crowd *= np.sqrt(np.mean(samples**2) / np.mean(crowd**2)) * 10 ** (-snr_db / 20)
    audio = np.clip(np.round((samples + crowd) / 2), -32768, 32767).astype(np.int16)
    return Known(name=f"{known.name}, others at {snr_db:.0f} dB", audio=audio, f0_hz=known.f0_hz)
