"""The voice encoder, run once over the sound instead of once per window.

pyannote encodes windows of 10 s that begin a second apart: each second of sound ten times. WeSpeaker's ResNets
(Wang et al., "WeSpeaker", ICASSP 2023) are convolutional up to their pooling over time, so their frames are computed
once here, and each window pools its own. The vectors differ a little from pyannote's: the features are centred by their
mean over the window's length around them, not over the window (pyannote's own `fbank_centering_span`); frames near a
window's ends see what lies beyond; a window begins at the frame before its start, less than 80 ms early. They do not
depend on the pieces that a video is cut into. docs/benchmarks.md has the effect on DER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from deployments.batch_backoff import BatchBackoff, answers
from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from deployments.speech_detector.network import Grid
    from deployments.types import Audio

FEATURE_MS: Final = 10
FEATURE_SAMPLES: Final = FEATURE_MS * SAMPLE_RATE_HZ // 1000
STRIDE: Final = 8
"""Features per frame of a WeSpeaker ResNet."""
FRAME_SAMPLES: Final = FEATURE_SAMPLES * STRIDE
BLOCK: Final = 2000
"""Features of one block."""
MARGIN: Final = 112
"""Features on either side that a frame of ResNet34 depends on: half its receptive field, in whole frames."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Features with their margins, shape (features, bands), and which frames of them are the block's own."""

    features: torch.Tensor
    own: slice


def has_one_pass(model: Any) -> bool:
    """Return whether `model`, a voice encoder of pyannote.audio, can be run once over the sound."""
    from pyannote.audio.models.embedding import WeSpeakerResNet34  # loaded already, and without telemetry

    return isinstance(model, WeSpeakerResNet34) and model.hparams.frame_shift == FEATURE_MS and not model.fbank_only


class OnePassEncoder:
    """A WeSpeaker ResNet of pyannote.audio, for the windows of one grid."""

    def __init__(
        self, model: Any, *, window_s: float, device: torch.device, batch_size: int, relieve: Callable[[], None]
    ) -> None:
        """`batch_size`: windows per pass, or as much sound in blocks."""
        model.hparams.fbank_centering_span = window_s
        self._model = model
        self._device = device
        self._batch_size = batch_size
        blocks = max(1, round(batch_size * window_s * 1000 / FEATURE_MS / (BLOCK + 2 * MARGIN)))
        self._encoding: BatchBackoff[_Block, torch.Tensor] = BatchBackoff(
            self._encode, max_batch=blocks, relieve=relieve, stage="diarizer"
        )

    def voices(
        self, audio: Audio, grid: Grid, numbers: Sequence[int], masks: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        """Return the vectors of the windows `numbers`, at least one, in order: (local speakers, dimension) each.

        `masks`: the frames of each local speaker to encode, shape (windows, frames, local speakers), 0 or 1.
        """
        around = grid.window_samples // 2 + MARGIN * FEATURE_SAMPLES
        begin = max(0, numbers[0] * grid.step_samples - around) // FRAME_SAMPLES * FRAME_SAMPLES
        end = numbers[-1] * grid.step_samples + grid.window_samples
        starts = [number * grid.step_samples - begin for number in numbers]
        with torch.inference_mode():
            features = self._features(audio[begin:], max(end, min(end + around, len(audio))) - begin)
            length = self._model.num_frames(grid.window_samples)
            firsts = [start // FRAME_SAMPLES for start in starts]
            spans = [range(first, first + length) for first in firsts]
            frames = self._frames(features, spans)
            weights = torch.from_numpy(masks.transpose(0, 2, 1).copy())
            vectors: list[NDArray[np.float32]] = []
            for at in range(0, len(spans), self._batch_size):
                batch = slice(at, at + self._batch_size)
                pooled = torch.stack([frames[..., span.start : span.stop] for span in spans[batch]])
                _, described = self._model.resnet.forward_embedding(pooled, weights=weights[batch].to(self._device))
                vectors += list(described.cpu().numpy())
        return vectors

    def _features(self, audio: Audio, samples: int) -> torch.Tensor:
        """Return the centred features of so many samples, zeros past the audio's end: shape (features, bands)."""
        waveform = np.zeros(samples, np.float32)
        waveform[: len(audio)] = audio[:samples] / np.float32(2**15)
        features: torch.Tensor = self._model.compute_fbank(torch.from_numpy(waveform)[None, None].to(self._device))[0]
        return features

    def _frames(self, features: torch.Tensor, needed: Sequence[range]) -> torch.Tensor:
        """Return the network's frames, shape (channels, bands, frames); zeros in blocks that no `needed` span meets."""
        starts = [
            start
            for start in range(0, len(features), BLOCK)
            if any(span.start * STRIDE < start + BLOCK and start < span.stop * STRIDE for span in needed)
        ]
        encoded = answers(self._encoding([_block(features, start) for start in starts]))
        found = encoded[0].new_zeros((*encoded[0].shape[:-1], -(-len(features) // STRIDE)))
        for start, own in zip(starts, encoded, strict=True):
            found[..., start // STRIDE : start // STRIDE + own.shape[-1]] = own
        return found

    def _encode(self, blocks: Sequence[_Block]) -> list[torch.Tensor]:
        """Return each block's own frames; blocks of one length are one batch."""
        frames: dict[int, torch.Tensor] = {}
        for length in {len(block.features) for block in blocks}:
            alike = [number for number, block in enumerate(blocks) if len(block.features) == length]
            encoded = self._model.resnet.forward_frames(torch.stack([blocks[number].features for number in alike]))
            frames |= dict(zip(alike, encoded, strict=True))
        return [frames[number][..., block.own] for number, block in enumerate(blocks)]


def _block(features: torch.Tensor, start: int) -> _Block:
    """Return the block from `start`, with as much margin as there is."""
    first, end = max(0, start - MARGIN), min(len(features), start + BLOCK + MARGIN)
    own = slice((start - first) // STRIDE, -(-(min(start + BLOCK, len(features)) - first) // STRIDE))
    return _Block(features[first:end], own)
