"""Whisper's log-mel spectra of the corpus, not yet clamped, so that utterances can be laid beside and over each other.

And what may happen to a spectrum on its way: another throat, noise, a level, a microphone, Whisper's own end of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import librosa
import numpy as np
import torch

from tests.models.recipe.synthesizers import RATE_HZ
from tests.models.recipe.whisper import MEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tests.models.recipe.corpus import Utterance

FRAMES_PER_S = 100
HOP, WINDOW = RATE_HZ // FRAMES_PER_S, 400
FLOOR = -10.0
"""log10 of the least power that Whisper knows."""
RMS, PEAK = 0.1, 0.9
NOISE_S = 40
NOISE_SLOPES = (0.0, 0.5, 1.0)
"""White, pink and brown: amplitude falls with that power of frequency."""
THROATS = (0.86, 1.16)
THROAT_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An utterance as the network hears it. `mel`: (80, frames), float16, log10 of power at an RMS of `RMS`."""

    words: tuple[str, ...]
    language: str
    voice: str
    times_s: tuple[tuple[float, float], ...] | None
    mel: np.ndarray


class Spectrograph:
    """Whisper's short-time spectrum and mel bands."""

    def __init__(self) -> None:
        bands = librosa.filters.mel(sr=RATE_HZ, n_fft=WINDOW, n_mels=MEL_BANDS)
        self._bands, self._window = torch.from_numpy(bands), torch.hann_window(WINDOW)

    def of(self, samples: Tensor) -> np.ndarray:
        """`samples`: (n,), float32, -1 to 1. Returns (80, n / 160), float16."""
        transformed = torch.stft(samples, WINDOW, HOP, window=self._window, return_complex=True)
        power = self._bands @ transformed[..., :-1].abs() ** 2
        return power.clamp(min=1e-10).log10().numpy().astype(np.float16)


def heard(said: Sequence[Utterance]) -> list[Heard]:
    """All of them at one level: half a minute of work for five hours of speech."""
    spectrograph = Spectrograph()
    return [
        Heard(
            words=each.words,
            language=each.language,
            voice=each.voice,
            times_s=each.times_s,
            mel=spectrograph.of(torch.from_numpy(at_level(each.samples))),
        )
        for each in said
    ]


def at_level(samples: np.ndarray) -> np.ndarray:
    """Whole frames of `samples` (int16) as float32 with an RMS of `RMS`, peaks of `PEAK` at most."""
    whole = samples[: len(samples) // HOP * HOP].astype(np.float32) / 2**15
    return whole * min(RMS / np.sqrt(np.mean(whole**2) + 1e-9), PEAK / np.abs(whole).max())


def noises(seed: int) -> list[np.ndarray]:
    """Spectra of `NOISE_S` of noise of each colour with an RMS of 1, float32."""
    spectrograph, generator = Spectrograph(), torch.Generator().manual_seed(seed)
    made = []
    for slope in NOISE_SLOPES:
        white = torch.fft.rfft(torch.randn(RATE_HZ * NOISE_S, generator=generator))
        coloured = torch.fft.irfft(white / torch.arange(len(white)).float().clamp(min=20) ** slope)
        made.append(spectrograph.of(coloured / coloured.std()).astype(np.float32))
    return made


CENTRES_HZ = librosa.mel_frequencies(MEL_BANDS + 2, fmin=0, fmax=RATE_HZ / 2)[1:-1]


def from_another_throat(draw: np.random.Generator, mel: np.ndarray) -> np.ndarray:
    """`mel` with its frequencies scaled, which makes other speakers of few (Jaitly & Hinton 2013), times unchanged."""
    if draw.random() > THROAT_SHARE:
        return mel
    sources = np.interp(CENTRES_HZ * draw.uniform(*THROATS), CENTRES_HZ, np.arange(MEL_BANDS))
    below = np.minimum(sources.astype(int), MEL_BANDS - 2)
    share = (sources - below).astype(np.float32)[:, None]
    return mel[below] * (1 - share) + mel[below + 1] * share


def with_noise(draw: np.random.Generator, mel: np.ndarray, kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Some noise, 10 to 45 dB below the speech, power on power."""
    noise = kinds[draw.integers(len(kinds))]
    first = draw.integers(noise.shape[1] - mel.shape[1])
    below = 2 + draw.uniform(10, 45) / 10  # log10 of power: speech has an RMS of 0.1
    return np.log10(10**mel + 10 ** (noise[:, first : first + mel.shape[1]] - below))


def through_a_microphone(draw: np.random.Generator, mel: np.ndarray) -> np.ndarray:
    """Another level, and half of the time a tilt."""
    mel = mel + 2 * draw.uniform(-1.0, 0.3)
    if draw.random() < 0.5:
        mel = mel + np.linspace(draw.uniform(-0.4, 0.4), draw.uniform(-0.4, 0.4), MEL_BANDS)[:, None]
    return mel.astype(np.float32)


def normalized(mel: np.ndarray) -> np.ndarray:
    """As Whisper's feature extractor ends: 80 dB deep, about -1 to 1."""
    mel = np.maximum(mel, FLOOR)
    return (np.maximum(mel, mel.max() - 8) + 4) / 4


def with_a_gap(draw: np.random.Generator, mel: np.ndarray) -> np.ndarray:
    """Some bands silent, three times in ten."""
    if draw.random() < 0.3:
        first = draw.integers(0, 70)
        mel[first : first + draw.integers(1, 9)] = mel.min()
    return mel
