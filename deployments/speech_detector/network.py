"""The pyannote segmentation network (PyanNet) that the whisperx package carries, for inference only.

Written anew on plain torch, because `import pyannote.audio` costs 3 s of CPU and 300 MB more than `import torch` (it
imports lightning, torchmetrics, pandas and scikit-learn), and its loader unpickles arbitrary objects. The scores equal
pyannote's own to 1e-4 (tests/unit/test_diarizer_pieces.py). Architecture: Bredin and Laurent, "End-to-end speaker
segmentation for overlap-aware resegmentation", Interspeech 2021.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deployments.types import SAMPLE_RATE_HZ, Audio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WINDOW_S = 5.0
FRAMES = 293
"""Frames of the network's output for one window."""
FRAME_STEP_S = 270 / SAMPLE_RATE_HZ
FRAME_WIDTH_S = 991 / SAMPLE_RATE_HZ
"""Receptive field of a frame before the recurrent layers."""
SPEAKERS = 3
"""Local speakers of one window. Their order has no meaning in another window."""
BATCH = 16
"""Windows per forward pass: more of them are no faster on a CPU and cost 14 MB each."""

SINC_WIDTH = 251
SINC_MIN_HZ = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Sliding windows over a whole video: window k starts at `k * step_s`; the last one may reach past the end.

    It is the grid of pyannote's `Inference.slide`: windows do not depend on the pieces that a video is cut into.
    """

    samples: int
    step_s: float
    window_s: float = WINDOW_S

    @property
    def window_samples(self) -> int:
        """Samples of one window."""
        return round(self.window_s * SAMPLE_RATE_HZ)

    @property
    def step_samples(self) -> int:
        """Samples between the starts of neighbouring windows."""
        return round(self.step_s * SAMPLE_RATE_HZ)

    @property
    def count(self) -> int:
        """Number of windows; 0 for no audio at all."""
        if self.samples == 0:
            return 0
        beyond_first = max(0, self.samples - self.window_samples)
        return 1 + -(-beyond_first // self.step_samples)

    def starting_in(self, start_s: float, end_s: float) -> range:
        """Return the windows whose start lies in [start_s, end_s)."""
        first, end = (max(0, -(-round(t * SAMPLE_RATE_HZ) // self.step_samples)) for t in (start_s, end_s))
        return range(min(first, self.count), min(end, self.count))

    def covering(self, start_s: float, end_s: float) -> range:
        """Return the windows that overlap [start_s, end_s)."""
        return self.starting_in(start_s - self.window_s + 1 / SAMPLE_RATE_HZ, end_s)


class SincNet(nn.Module):
    """Band-pass filters with learnt edges, then two convolutions: (batch, 1, samples) to (batch, 60, frames)."""

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList([nn.Identity(), nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norm1d = nn.ModuleList([nn.InstanceNorm1d(width, affine=True) for width in (80, 60, 60)])
        self.register_buffer("filters", torch.zeros(80, 1, SINC_WIDTH))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        x = functional.conv1d(self.wav_norm1d(waveforms), self.filters, stride=10).abs_()
        x = functional.leaky_relu(self.norm1d[0](functional.max_pool1d(x, 3)))
        for conv, norm in zip(self.conv1d[1:], self.norm1d[1:], strict=True):
            x = functional.leaky_relu(norm(functional.max_pool1d(conv(x), 3)))
        return x


class PyanNet(nn.Module):
    """Input (batch, 1, 80000) float32, output (batch, 293, 3) float32: each local speaker's activity, 0-1."""

    def __init__(self) -> None:
        super().__init__()
        self.sincnet = SincNet()
        self.lstm = nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
        self.classifier = nn.Linear(128, SPEAKERS)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the activities."""
        x, _ = self.lstm(self.sincnet(waveforms).transpose(1, 2))
        for linear in self.linear:
            x = functional.leaky_relu(linear(x))
        return torch.sigmoid(self.classifier(x))


class SegmentationNetwork:
    """The loaded network, applied to windows of a video. Safe to call from several threads."""

    def __init__(self, *, device: str = "cpu", threads: int = 1) -> None:
        self.device = torch.device(device)
        self.threads = threads
        self.network = load_network().to(self.device)

    def scores(self, audio: Audio, grid: Grid, windows: range) -> NDArray[np.float32]:
        """Return the activities in `windows` of the whole video's `audio`: shape (windows, 293, 3), float32, 0-1."""
        torch.set_num_threads(self.threads)
        scores = np.empty((len(windows), FRAMES, SPEAKERS), np.float32)
        for at in range(0, len(windows), BATCH):
            batch = cut_windows(audio, grid, windows[at : at + BATCH])
            with torch.inference_mode():
                scores[at : at + BATCH] = self.network(torch.from_numpy(batch).to(self.device)).cpu().numpy()
        return scores


def cut_windows(audio: Audio, grid: Grid, windows: Sequence[int]) -> NDArray[np.float32]:
    """Cut `windows` from the whole video's `audio`, zeros past its end: (windows, 1, samples), float32, -1 to 1."""
    waveforms = np.zeros((len(windows), 1, grid.window_samples), np.float32)
    for waveform, window in zip(waveforms, windows, strict=True):
        samples = audio[window * grid.step_samples :][: grid.window_samples]
        waveform[0, : len(samples)] = samples
    waveforms /= 2**15
    return waveforms


def load_network() -> PyanNet:
    """Load PyanNet with the weights of the whisperx package. Raises FileNotFoundError if that is not installed."""
    weights = dict(read_checkpoint(package_file("whisperx", "assets/pytorch_model.bin"))["state_dict"])
    bank = [weights.pop(f"sincnet.conv1d.0.filterbank.{name}") for name in ("low_hz_", "band_hz_", "window_", "n_")]
    network = PyanNet()
    network.load_state_dict(weights | {"sincnet.filters": sinc_filters(*bank)})
    return network.eval()


def package_file(package: str, relative: str) -> Path:
    """Return the path of a file of a package, without importing it. Raises FileNotFoundError if either is missing."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / relative
        if path.is_file():
            return path
    raise FileNotFoundError(f"{relative} of the Python package {package}")


def sinc_filters(low_hz: torch.Tensor, band_hz: torch.Tensor, window: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """Compute band-pass filters, 40 even and 40 odd ones, from their learnt edges: shape (80, 1, 251).

    `low_hz`, `band_hz`: shape (40, 1), beyond `SINC_MIN_HZ`; `window`, `n`: the left half's taper and angular times.
    After Pariente et al., "Filterbank design for end-to-end speech separation", ICASSP 2020 (`ParamSincFB` of
    asteroid-filterbanks), operation by operation: a filter's rounding error of 1e-6 moves single scores by 0.2.
    """
    low = SINC_MIN_HZ + low_hz.abs()
    high = (low + SINC_MIN_HZ + band_hz.abs()).clamp(SINC_MIN_HZ, SAMPLE_RATE_HZ / 2)
    width = high - low
    below, above = low @ n, high @ n
    even = ((above.sin() - below.sin()) / (n / 2)) * window
    odd = ((below.cos() - above.cos()) / (n / 2)) * window
    even = torch.cat([even, 2 * width, even.flip(1)], dim=1)
    odd = torch.cat([odd, torch.zeros_like(width), -odd.flip(1)], dim=1)
    return torch.cat([even / (2 * width), odd / (2 * width)]).unsqueeze(1)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Lightning checkpoint without running its code: classes that its metadata names become empty ones."""
    known: dict[str, Any] = {"collections.defaultdict": defaultdict} | {
        f"builtins.{kind.__name__}": kind for kind in (dict, list, int)
    }
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    allowed: list[Any] = [(known.get(name) or type("Shell", (_Shell,), {}), name) for name in named]
    with torch.serialization.safe_globals(allowed):
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


class _Shell:
    """Replaces a class of the checkpoint: accepts any arguments and state, and does nothing."""

    def __new__(cls, *_args: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_args: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass
