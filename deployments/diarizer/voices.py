"""Vectors of voices: the GE2E speaker encoder with the weights of the resemblyzer package.

The package itself is not imported (it needs webrtcvad, which must be compiled). Method: Wan et al., "Generalized
end-to-end loss for speaker verification", ICASSP 2018; features and windows as in resemblyzer 0.1.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from deployments.speech_detector.network import FRAME_STEP_S, FRAME_WIDTH_S, WINDOW_S, package_file
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deployments.types import Audio

HOP = SAMPLE_RATE_HZ // 100
FFT = 400
MELS = 40
DIMENSION = 256
WINDOW_FRAMES = 160
"""Frames of the encoder's input: 1.6 s."""
STEP_FRAMES = 50
"""Frames between the starts of consecutive encoder windows."""
OWN_SHARE = 0.95
"""An encoder window counts for a speaker if this share of it is theirs alone."""
LEAST_SHARE = 0.25
"""If no window does, the best one counts if it has at least this share."""
LEAST_OWN_FRAMES = 30
"""Speakers with less speech without overlap (half a second) are encoded by all their speech, as in pyannote."""
LEAST_LEVEL_DBFS = -30.0
"""Quieter speech is amplified to this level, as resemblyzer does."""
BATCH = 64


class VoiceEncoder(nn.Module):
    """Input (batch, 160, 40) mel power, output (batch, 256): non-negative, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, DIMENSION, 3, batch_first=True)
        self.linear = nn.Linear(DIMENSION, DIMENSION)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def load_encoder() -> VoiceEncoder:
    """Load the encoder with its trained weights. Raises FileNotFoundError if resemblyzer is not installed."""
    checkpoint = torch.load(package_file("resemblyzer", "pretrained.pt"), map_location="cpu", weights_only=True)
    encoder = VoiceEncoder()
    encoder.load_state_dict({k: v for k, v in checkpoint["model_state"].items() if not k.startswith("similarity")})
    return encoder.eval()


class Voices:
    """The loaded encoder, applied to the local speakers of sliding windows. Safe to call from several threads.

    The encoder runs once per 1.6 s window of a grid over the video. A local speaker's vector is the mean over the
    encoder windows in which nobody else speaks, weighted by their share of speech. Encoding each sliding window by
    itself, as pipelines usually do, costs twice as much and is no better (docs/decisions.md).
    """

    def __init__(self, *, device: str = "cpu", threads: int = 1) -> None:
        self.device = torch.device(device)
        self.threads = threads
        self.encoder = load_encoder().to(self.device)

    def describe(self, audio: Audio, starts_s: NDArray[np.float64], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return vectors of length 1, shape (windows, local speakers, 256), NaN for speakers with too little speech.

        `starts_s`: shape (windows,). `active`: shape (windows, frames, local speakers), from 5 s windows.
        """
        windows, _, speakers = active.shape
        vectors = np.full((windows * speakers, DIMENSION), np.nan, np.float32)
        if windows:
            starts = np.rint(starts_s * FRAMES_PER_S).astype(int)
            firsts = encoder_windows(starts[0], starts[-1] + round(WINDOW_S * FRAMES_PER_S))
            weights = window_weights(own_frames(active), np.repeat(starts, speakers), firsts)
            used, described = weights.any(axis=0), weights.any(axis=1)
            mean = weights[described][:, used] @ self.encode(audio, firsts[used])
            vectors[described] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors.reshape(windows, speakers, DIMENSION)

    def encode(self, audio: Audio, firsts: NDArray[np.int_]) -> NDArray[np.float32]:
        """Return the encoder's vectors for windows that start at frames `firsts` (of 10 ms): shape (windows, 256)."""
        torch.set_num_threads(self.threads)
        vectors = np.empty((len(firsts), DIMENSION), np.float32)
        if not len(firsts):
            return vectors
        mel = mel_power(audio, int(firsts[0]), int(firsts[-1] - firsts[0]) + WINDOW_FRAMES)
        gains = power_gains(audio, firsts)
        for at in range(0, len(firsts), BATCH):
            batch = np.stack([mel[first : first + WINDOW_FRAMES] for first in firsts[at : at + BATCH] - firsts[0]])
            batch *= gains[at : at + BATCH, None, None]
            with torch.inference_mode():
                vectors[at : at + BATCH] = self.encoder(torch.from_numpy(batch).to(self.device)).cpu().numpy()
        return vectors


def encoder_windows(first: int, end: int) -> NDArray[np.int_]:
    """Return the first frames of the encoder windows, on the grid over the whole video, inside [first, end)."""
    return np.arange(-(-first // STEP_FRAMES), (end - WINDOW_FRAMES) // STEP_FRAMES + 1) * STEP_FRAMES


def own_frames(active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return when each local speaker speaks without overlap, in frames of 10 ms: (windows * local speakers, 500).

    Speakers with hardly any such speech get all their speech.
    """
    centres_s = np.arange(round(WINDOW_S * FRAMES_PER_S)) / FRAMES_PER_S
    nearest = np.rint((centres_s - FRAME_WIDTH_S / 2) / FRAME_STEP_S).astype(int).clip(0, active.shape[1] - 1)
    own_active = active & (active.sum(axis=2, keepdims=True) == 1)
    enough = own_active.sum(axis=1, keepdims=True) > LEAST_OWN_FRAMES
    own = np.where(enough, own_active, active)[:, nearest]
    return own.swapaxes(1, 2).reshape(-1, len(nearest))


def window_weights(own: NDArray[np.bool_], starts: NDArray[np.int_], firsts: NDArray[np.int_]) -> NDArray[np.float32]:
    """Return the weight of each encoder window for each local speaker: (windows * local speakers, firsts), 0-1.

    `own`: see `own_frames`; its rows start at frames `starts`. The encoder windows start at frames `firsts`.
    """
    said = np.pad(own.cumsum(axis=1), ((0, 0), (1, 0)))
    first = firsts[None, :] - starts[:, None]
    inside = (first >= 0) & (first + WINDOW_FRAMES <= own.shape[1])
    first = np.where(inside, first, 0)
    before, after = (np.take_along_axis(said, frame, axis=1) for frame in (first, first + WINDOW_FRAMES))
    share = np.where(inside, after - before, 0) / WINDOW_FRAMES
    best = np.maximum(share.max(axis=1, keepdims=True, initial=0), LEAST_SHARE)
    counted = share >= np.minimum(best, OWN_SHARE)
    return np.where(counted, share, 0).astype(np.float32)


def mel_power(audio: Audio, first: int, count: int) -> NDArray[np.float32]:
    """Return the mel power of frames `first` to `first + count`: shape (count, 40), float32.

    Frame i is centred at i * 10 ms; beyond the audio's ends it is 0. The whole audio's
    `librosa.feature.melspectrogram(n_fft=400, hop_length=160, n_mels=40)` is equal.
    """
    samples = samples_at(audio, first * HOP - FFT // 2, (count - 1) * HOP + FFT)
    spectrum = torch.stft(
        torch.from_numpy(samples), FFT, HOP, window=torch.hann_window(FFT), center=False, return_complex=True
    )
    power: NDArray[np.float32] = spectrum.abs().square_().numpy()
    return np.asarray(power.T @ mel_filters(), np.float32)


def power_gains(audio: Audio, firsts: NDArray[np.int_]) -> NDArray[np.float32]:
    """Return the gains that raise each window's mean power to `LEAST_LEVEL_DBFS`, at least 1: shape (firsts,)."""
    count = WINDOW_FRAMES * HOP
    power = np.array([np.mean(np.square(samples_at(audio, first * HOP, count))) for first in firsts])
    return np.asarray(np.maximum(1, 10 ** (LEAST_LEVEL_DBFS / 10) / np.maximum(power, 1e-10)), np.float32)


def samples_at(audio: Audio, first: int, count: int) -> NDArray[np.float32]:
    """Return `count` samples from `first` on, float32, -1 to 1, zeros beyond the audio's ends."""
    samples = np.zeros(count, np.float32)
    inside = audio[max(0, first) : max(0, first + count)]
    samples[max(0, -first) :][: len(inside)] = inside
    return samples / np.float32(2**15)


def mel_filters() -> NDArray[np.float32]:
    """Compute Slaney's triangular filters of equal area from 0 to 8 kHz: shape (201, 40).

    Equal to `librosa.filters.mel(sr=16000, n_fft=400, n_mels=40)`, whose import alone takes seconds.
    """
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE_HZ / 2), MELS + 2))
    bins_hz = np.linspace(0, SAMPLE_RATE_HZ / 2, FFT // 2 + 1)[:, None]
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - lower) / (centre - lower), (upper - bins_hz) / (upper - centre)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower)).astype(np.float32)


LINEAR_HZ_PER_MEL = 200 / 3
LOG_FROM_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return float(LOG_FROM_HZ / LINEAR_HZ_PER_MEL + np.log(hz / LOG_FROM_HZ) / LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    log_from_mel = LOG_FROM_HZ / LINEAR_HZ_PER_MEL
    return np.where(mel < log_from_mel, mel * LINEAR_HZ_PER_MEL, LOG_FROM_HZ * np.exp(LOG_STEP * (mel - log_from_mel)))
