"""Pitch trackers of others behind one call: `Audio` in, one F0 per 10 ms frame out, NaN where unvoiced.

Each runs as its authors advise, on one thread, looking for 60 to 1000 Hz where it can be told so. Those that the
product does not use are not installed by `make setup`; this brings them into an environment that has it:

    pip install --no-deps torchcrepe resampy torchfcpe local-attention hyper-connections einx torch-einops-utils \
        praat-parselmouth

Praat (praat-parselmouth) is under the GPL: it is used here, by who installs it, and nowhere in the product.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

import librosa
import numpy as np
import prosody_truth as truth
import pyworld
import torch

from deployments.prosody import pitch
from deployments.prosody.network import MARGIN
from deployments.prosody.tracks import tracks
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Audio, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tracker = Callable[[Audio], "NDArray[np.floating]"]
MIN_HZ, MAX_HZ = 60.0, 1000.0
CREPE_VOICED = 0.21
"""Periodicity from which a frame counts as voiced, and the two filters before it: torchcrepe's own example."""
CREPE_SILENCE_DB = -60.0
FCPE_VOICED = 0.006
"""The default of `InferCFNaiveMelPE.infer`."""


def ours(audio: Audio) -> NDArray[np.floating]:
    """The product: level, F0 and voicing (its level is computed and timed too)."""
    return tracks(audio, Span(start_s=0, end_s=audio.size / SAMPLE_RATE_HZ)).f0_hz


def autocorrelation(audio: Audio) -> NDArray[np.floating]:
    """The product without its network."""
    with mock.patch.multiple(pitch, opinion=mock.Mock(), weighed=lambda found, _: found):
        return ours(audio)


def pyin(audio: Audio) -> NDArray[np.floating]:
    """Probabilistic YIN (Mauch and Dixon 2014)."""
    return librosa.pyin(_floats(audio), fmin=MIN_HZ, fmax=MAX_HZ, sr=SAMPLE_RATE_HZ, hop_length=160, frame_length=1024)[
        0
    ]


def harvest(audio: Audio) -> NDArray[np.floating]:
    """WORLD's Harvest (Morise 2017), voiced where D4C LoveTrain (its synthesis' own test) hears it."""
    samples = audio / 32768
    f0_hz, times_s = pyworld.harvest(samples, SAMPLE_RATE_HZ, f0_floor=MIN_HZ, f0_ceil=MAX_HZ, frame_period=10)
    noise = pyworld.d4c(samples, f0_hz, times_s, SAMPLE_RATE_HZ, threshold=0.85)
    return np.where((f0_hz > 0) & (noise.min(axis=1) < 0.99), f0_hz, np.nan)


def praat(audio: Audio) -> NDArray[np.floating]:
    """Praat's `To Pitch (ac)` with its own thresholds."""
    import parselmouth

    sound = parselmouth.Sound(audio / 32768, SAMPLE_RATE_HZ)
    found = sound.to_pitch_ac(time_step=0.01, pitch_floor=MIN_HZ, pitch_ceiling=MAX_HZ)
    f0_hz = found.selected_array["frequency"]
    return _at_frames(found.xs(), np.where(f0_hz > 0, f0_hz, np.nan), truth.frames_of(audio))


def swift_f0(audio: Audio) -> NDArray[np.floating]:
    """SwiftF0 (Nieradzik 2025), voiced from its calibrated confidence 0.5; scaled before, as its README asks."""
    loudest = np.abs(_floats(audio)).max()
    found = _swift().detect(
        _floats(audio) * (0.5 / max(loudest, 1e-9)), SAMPLE_RATE_HZ, MIN_HZ / MARGIN, MAX_HZ * MARGIN
    )
    f0_hz = np.where((found.confidence >= 0.5) & (loudest > 2 / 32768), found.pitch_hz, np.nan)
    return _at_frames(found.timestamps, f0_hz, truth.frames_of(audio))


def crepe(audio: Audio, *, model: str) -> NDArray[np.floating]:
    """CREPE (Kim et al. 2018) in PyTorch, with a Viterbi path."""
    import torchcrepe

    samples = torch.from_numpy(_floats(audio))[None]
    f0_hz, periodicity = torchcrepe.predict(
        samples, SAMPLE_RATE_HZ, 160, MIN_HZ, MAX_HZ, model, batch_size=512, return_periodicity=True
    )
    periodicity = torchcrepe.filter.median(periodicity, 3)
    periodicity = torchcrepe.threshold.Silence(CREPE_SILENCE_DB)(periodicity, samples, SAMPLE_RATE_HZ, 160)
    return torchcrepe.threshold.At(CREPE_VOICED)(f0_hz, periodicity)[0].numpy()


def fcpe(audio: Audio) -> NDArray[np.floating]:
    """FCPE (Luo et al. 2025)."""
    wave = torch.from_numpy(_floats(audio))[None, :, None]
    f0_hz = _fcpe().infer(wave, SAMPLE_RATE_HZ, "local_argmax", FCPE_VOICED)[0, :, 0].numpy()
    return np.where((f0_hz >= MIN_HZ) & (f0_hz <= MAX_HZ), f0_hz, np.nan)


KNOWN: dict[str, tuple[str, Tracker]] = {
    "ours": ("deployments", ours),
    "ours without network": ("deployments", autocorrelation),
    "swift-f0": ("swift_f0", swift_f0),
    "torchfcpe": ("torchfcpe", fcpe),
    "torchcrepe tiny": ("torchcrepe", functools.partial(crepe, model="tiny")),
    "torchcrepe full": ("torchcrepe", functools.partial(crepe, model="full")),
    "Praat": ("parselmouth", praat),
    "WORLD Harvest": ("pyworld", harvest),
    "librosa.pyin": ("librosa", pyin),
}
"""The package that each tracker needs, and the tracker."""


def installed() -> dict[str, Tracker]:
    """Those that can run here."""
    return {name: tracker for name, (package, tracker) in KNOWN.items() if importlib.util.find_spec(package)}


def _floats(audio: Audio) -> NDArray[np.float32]:
    return audio.astype(np.float32) / np.float32(32768)


def _at_frames(times_s: NDArray[np.floating], f0_hz: NDArray[np.floating], frames: int) -> NDArray[np.floating]:
    """A contour of any frame times at ours: voicing of the nearest frame, F0 between the two voiced ones around it."""
    ours_s = np.arange(frames) / FRAMES_PER_S
    nearest = f0_hz[np.abs(times_s[:, None] - ours_s).argmin(axis=0)]
    between = np.exp(np.interp(ours_s, times_s, np.log(f0_hz)))
    return np.where(np.isfinite(nearest) & np.isfinite(between), between, nearest)


@functools.cache
def _swift() -> object:
    import swift_f0 as package

    return package.SwiftF0(threads=1, spin=False)


@functools.cache
def _fcpe() -> object:
    import torchfcpe

    with contextlib.redirect_stdout(sys.stderr):  # it tells of its defaults
        return torchfcpe.spawn_bundled_infer_model(device="cpu")
