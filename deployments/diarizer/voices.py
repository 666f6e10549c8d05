"""What a voice sounds like, as a point: the GE2E speaker encoder with the weights from the resemblyzer package.

The package itself is not imported (it needs webrtcvad, which compiles). Knows nothing of pieces, clusters or Ray.

Method: Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018; features and windows as in
resemblyzer 0.1.4.
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
"""The encoder hears 1.6 s at a time."""
HEARING_STEP = 50
"""Frames between the stretches that the encoder hears."""
OWN_SHARE = 0.95
"""A stretch counts for a speaker if so much of it is theirs alone."""
LEAST_SHARE = 0.25
"""Where none does, the best one counts if it has at least this share."""
LEAST_ALONE_FRAMES = 30
"""Who speaks alone no longer than half a second is described by all their speech, as in pyannote's pipeline."""
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
        """The embeddings."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def load_encoder() -> VoiceEncoder:
    """The encoder with its trained weights.

    Raises:
        FileNotFoundError: resemblyzer is not installed.
    """
    checkpoint = torch.load(package_file("resemblyzer", "pretrained.pt"), map_location="cpu", weights_only=True)
    encoder = VoiceEncoder()
    encoder.load_state_dict({k: v for k, v in checkpoint["model_state"].items() if not k.startswith("similarity")})
    return encoder.eval()


class Voices:
    """The loaded encoder over the local speakers of sliding windows. Safe to call from several threads.

    The encoder hears each stretch of 1.6 s of a grid over the video once. A local speaker is the mean of the stretches
    of the window in which nobody else speaks, weighted by how much of them is speech. To let the encoder hear each
    window's speech on its own, as pipelines usually do, costs twice as much and is no better (docs/decisions.md).
    """

    def __init__(self, *, device: str = "cpu", threads: int = 1) -> None:
        self.device = torch.device(device)
        self.threads = threads
        self.encoder = load_encoder().to(self.device)

    def describe(self, audio: Audio, starts_s: NDArray[np.float64], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Vectors of shape (windows, local speakers, 256), of length 1; NaN for who is not heard enough.

        `starts_s`: shape (windows,). `active`: shape (windows, frames, local speakers), from 5 s windows.
        """
        windows, _, speakers = active.shape
        vectors = np.full((windows * speakers, DIMENSION), np.nan, np.float32)
        if windows:
            starts = np.rint(starts_s * FRAMES_PER_S).astype(int)
            hearings = hearings_between(starts[0], starts[-1] + round(WINDOW_S * FRAMES_PER_S))
            weights = hearing_weights(own_frames(active), np.repeat(starts, speakers), hearings)
            used, described = weights.any(axis=0), weights.any(axis=1)
            mean = weights[described][:, used] @ self.hear(audio, hearings[used])
            vectors[described] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors.reshape(windows, speakers, DIMENSION)

    def hear(self, audio: Audio, hearings: NDArray[np.int_]) -> NDArray[np.float32]:
        """The encoder's vectors of the 1.6 s from each of `hearings` (frames of 10 ms) on: shape (hearings, 256)."""
        torch.set_num_threads(self.threads)
        vectors = np.empty((len(hearings), DIMENSION), np.float32)
        if not len(hearings):
            return vectors
        mel = mel_power(audio, int(hearings[0]), int(hearings[-1] - hearings[0]) + WINDOW_FRAMES)
        gains = power_gains(audio, hearings)
        for at in range(0, len(hearings), BATCH):
            batch = np.stack([mel[first : first + WINDOW_FRAMES] for first in hearings[at : at + BATCH] - hearings[0]])
            batch *= gains[at : at + BATCH, None, None]
            with torch.inference_mode():
                vectors[at : at + BATCH] = self.encoder(torch.from_numpy(batch).to(self.device)).cpu().numpy()
        return vectors


def hearings_between(first: int, end: int) -> NDArray[np.int_]:
    """First frames of the stretches, on the grid over the whole video, inside [first, end)."""
    return np.arange(-(-first // HEARING_STEP), (end - WINDOW_FRAMES) // HEARING_STEP + 1) * HEARING_STEP


def own_frames(active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """When each local speaker speaks alone, in frames of 10 ms: shape (windows * local speakers, 500).

    Who hardly ever speaks alone gets all their speech.
    """
    centres_s = np.arange(round(WINDOW_S * FRAMES_PER_S)) / FRAMES_PER_S
    nearest = np.rint((centres_s - FRAME_WIDTH_S / 2) / FRAME_STEP_S).astype(int).clip(0, active.shape[1] - 1)
    alone = active & (active.sum(axis=2, keepdims=True) == 1)
    enough = alone.sum(axis=1, keepdims=True) > LEAST_ALONE_FRAMES
    own = np.where(enough, alone, active)[:, nearest]
    return own.swapaxes(1, 2).reshape(-1, len(nearest))


def hearing_weights(
    own: NDArray[np.bool_], starts: NDArray[np.int_], hearings: NDArray[np.int_]
) -> NDArray[np.float32]:
    """How much each stretch counts for each local speaker: shape (windows * local speakers, hearings), 0-1.

    `own`: as from `own_frames`, whose rows begin at frames `starts`. The stretches begin at frames `hearings`.
    """
    said = np.pad(own.cumsum(axis=1), ((0, 0), (1, 0)))
    first = hearings[None, :] - starts[:, None]
    inside = (first >= 0) & (first + WINDOW_FRAMES <= own.shape[1])
    first = np.where(inside, first, 0)
    before, after = (np.take_along_axis(said, frame, axis=1) for frame in (first, first + WINDOW_FRAMES))
    share = np.where(inside, after - before, 0) / WINDOW_FRAMES
    best = np.maximum(share.max(axis=1, keepdims=True, initial=0), LEAST_SHARE)
    counted = share >= np.minimum(best, OWN_SHARE)
    return np.where(counted, share, 0).astype(np.float32)


def mel_power(audio: Audio, first: int, count: int) -> NDArray[np.float32]:
    """Mel power of frames `first` to `first + count` (frame i is centred at i * 10 ms), zeros beyond the audio's ends.

    Shape (count, 40). As `librosa.feature.melspectrogram(n_fft=400, hop_length=160, n_mels=40)` of the whole audio.
    """
    samples = samples_at(audio, first * HOP - FFT // 2, (count - 1) * HOP + FFT)
    spectrum = torch.stft(
        torch.from_numpy(samples), FFT, HOP, window=torch.hann_window(FFT), center=False, return_complex=True
    )
    power: NDArray[np.float32] = spectrum.abs().square_().numpy()
    return np.asarray(power.T @ mel_filters(), np.float32)


def power_gains(audio: Audio, hearings: NDArray[np.int_]) -> NDArray[np.float32]:
    """What brings each stretch's mean power up to `LEAST_LEVEL_DBFS`, 1 where it is louder: shape (hearings,)."""
    count = WINDOW_FRAMES * HOP
    power = np.array([np.mean(np.square(samples_at(audio, first * HOP, count))) for first in hearings])
    return np.asarray(np.maximum(1, 10 ** (LEAST_LEVEL_DBFS / 10) / np.maximum(power, 1e-10)), np.float32)


def samples_at(audio: Audio, first: int, count: int) -> NDArray[np.float32]:
    """`count` samples from `first` on, -1 to 1, zeros beyond the audio's ends."""
    samples = np.zeros(count, np.float32)
    inside = audio[max(0, first) : max(0, first + count)]
    samples[max(0, -first) :][: len(inside)] = inside
    return samples / np.float32(2**15)


def mel_filters() -> NDArray[np.float32]:
    """Slaney's triangles of equal area from 0 to 8 kHz: shape (201, 40).

    As `librosa.filters.mel(sr=16000, n_fft=400, n_mels=40)`, whose import alone takes seconds.
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
