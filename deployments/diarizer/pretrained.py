"""The engine `pyannote`: a trained pipeline of pyannote.audio, such as community-1, in short calls.

The pipeline's own networks, thresholds, clustering (VBx with PLDA, or agglomerative) and reconstruction are used. Only
the order of the calls differs, and the turns equal those of one call (tests/unit/test_diarizer_pretrained.py); except
that the voice encoder runs once over the sound where it can (`one_pass`), which changes its vectors a little. A lack of
memory halves the windows, or blocks, of a network's pass. pyannote unpickles its checkpoints (`weights_only=False`),
which can run code: so a pipeline is loaded only from a folder whose digests are in the model lock. A pipeline of
another class than `SpeakerDiarization`, or with preprocessors, is refused.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from deployments.batch_backoff import BatchBackoff, answers
from deployments.device import check_device, release_memory
from deployments.diarizer.one_pass import OnePassEncoder, has_one_pass
from deployments.diarizer.pieces import evenly_spread, has_no_voice, until, whole
from deployments.diarizer.piecewise import PiecewiseDiarization
from deployments.diarizer.protocol import Embeddings, Segmentation
from deployments.errors import ModelLoadError
from deployments.speech_detector.network import Grid, cut_windows
from deployments.types import SAMPLE_RATE_HZ, Audio, Span

# isort: split
# pyannote comes after `piecewise`, which imports it without its telemetry and warnings.
from pyannote.audio import Pipeline
from pyannote.audio.pipelines import SpeakerDiarization
from pyannote.audio.pipelines.speaker_verification import PyannoteAudioPretrainedSpeakerEmbedding
from pyannote.audio.utils.signal import binarize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.diarizer.config import DiarizerConfig, SpeakerCounts
    from deployments.types import Turn

Scores: TypeAlias = NDArray[np.float32]
"""Shape (frames, local speakers), of one window."""
Vectors: TypeAlias = NDArray[np.float32]
"""Shape (local speakers, dimension), of one window."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A window of the video. `masks`: the frames of each local speaker to encode, (frames, local speakers), 0 or 1."""

    audio: Audio
    grid: Grid
    number: int
    masks: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class PretrainedEngine:
    """Segmentation, voices, clustering and reconstruction by the pipeline that `config.model` names."""

    def __init__(self, config: DiarizerConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self._pipeline = load(config)
        self._network = self._pipeline._segmentation  # noqa: SLF001 - pyannote gives no other access to its parts
        self._voices = self._pipeline._embedding  # noqa: SLF001
        self._powerset = self._network.model.specifications.powerset
        relieve = partial(release_memory, config.device)
        self._segmenting: BatchBackoff[_Window, Scores] = BatchBackoff(
            self._segment, max_batch=config.segmentation_batch_size, relieve=relieve, stage="diarizer"
        )
        self._one_pass: OnePassEncoder | None = None
        if config.encode_once and has_one_pass(self._voices.model_):
            self._one_pass = OnePassEncoder(
                self._voices.model_,
                window_s=self._network.duration,
                device=self.device,
                batch_size=config.embedding_batch_size,
                relieve=relieve,
            )
        self._embedding: BatchBackoff[_Window, Vectors] = BatchBackoff(
            self._embed, max_batch=config.embedding_batch_size, relieve=relieve, stage="diarizer"
        )

    def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Return the scores of the windows that start in `piece`."""
        grid = self._grid(audio)
        numbers = grid.starting_in(piece.start_s, piece.end_s)
        scores = self._no_scores(grid)
        if numbers:
            windows = [_Window(audio, grid, number) for number in numbers]
            scores = np.stack(answers(self._segmenting(windows)))
        return Segmentation(first_window=numbers.start, duration_s=len(audio) / SAMPLE_RATE_HZ, scores=scores)

    def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Return one vector per window and local speaker."""
        grid = self._grid(audio)
        masks = self._masks(segmentation.scores)
        windows, _, speakers = masks.shape
        vectors = np.full((windows, speakers, self._voices.dimension), np.nan, np.float32)
        spoken: NDArray[np.bool_] = np.any(masks > 0, axis=1)
        voiced = np.flatnonzero(np.any(spoken, axis=1))
        numbers = (segmentation.first_window + voiced).tolist()
        for at, described in zip(voiced, self._described(audio, grid, numbers, masks[voiced]), strict=True):
            vectors[at] = np.where(spoken[at][:, None], described, np.nan)
        return Embeddings(first_window=segmentation.first_window, vectors=vectors)

    def _described(
        self, audio: Audio, grid: Grid, numbers: Sequence[int], masks: NDArray[np.float32]
    ) -> Sequence[Vectors]:
        """Return the vectors of the windows `numbers`, of which there may be none."""
        if self._one_pass is None or not numbers:
            return answers(self._embedding([_Window(audio, grid, *each) for each in zip(numbers, masks, strict=True)]))
        return self._one_pass.voices(audio, grid, numbers, masks)

    def cluster(
        self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings], **counts: Unpack[SpeakerCounts]
    ) -> list[Turn]:
        """Return the turns of the whole video, none later than its end; without overlap where `config.exclusive`."""
        scores, vectors = whole(segmentations, embeddings)
        if has_no_voice(vectors):
            return []
        turns = self._pipeline.turns(scores, vectors, exclusive=self.config.exclusive, **self.config.counts(**counts))
        return until(segmentations[0].duration_s, turns)

    def check(self) -> None:
        """Raise DeviceError where the device does not compute any more."""
        check_device(self.config.device)

    def _grid(self, audio: Audio) -> Grid:
        return Grid(samples=len(audio), step_s=self._network.step, window_s=self._network.duration)

    def _segment(self, windows: Sequence[_Window]) -> list[Scores]:
        """Return the scores of each of `windows`, by pyannote's own inference."""
        scores: Scores = self._network.infer(waveforms_of(windows))
        return list(scores)

    def _embed(self, windows: Sequence[_Window]) -> list[Vectors]:
        """Return the voice encoder's vectors for each of `windows`, one per mask."""
        masks = torch.from_numpy(np.stack([window.masks.T for window in windows]))
        vectors: Vectors = self._voices(waveforms_of(windows), masks=masks)
        return list(vectors)

    def _no_scores(self, grid: Grid) -> NDArray[np.float32]:
        model = self._network.model
        return np.empty((0, model.num_frames(grid.window_samples), len(model.specifications.classes)), np.float32)

    def _masks(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frames of each local speaker to encode: shape (windows, frames, local speakers), 0 or 1.

        As in pyannote's `get_embeddings`: if the pipeline excludes overlap, only frames without other speakers, except
        for speakers that have hardly any.
        """
        active = scores if self._powerset or not len(scores) else self._binary(scores)
        if not self._pipeline.embedding_exclude_overlap:
            return active.astype(np.float32)
        window_samples = self._network.duration * SAMPLE_RATE_HZ
        least_frames = math.ceil(active.shape[1] * self._voices.min_num_samples / window_samples)
        without_overlap = active * (active.sum(axis=2, keepdims=True) < 2)  # noqa: PLR2004 - fewer than two
        masks = np.where(without_overlap.sum(axis=1, keepdims=True) > least_frames, without_overlap, active)
        return masks.astype(np.float32)

    def _binary(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        windows, threshold = self._pipeline.over_windows(scores), self._pipeline.segmentation.threshold
        active: NDArray[np.float32] = binarize(windows, onset=threshold, initial_state=False).data
        return active


def waveforms_of(windows: Sequence[_Window]) -> torch.Tensor:
    """Return the waveforms of `windows`, zeros past the audio's end: shape (windows, 1, samples), -1 to 1."""
    return torch.from_numpy(np.concatenate([cut_windows(each.audio, each.grid, [each.number]) for each in windows]))


def load(config: DiarizerConfig) -> PiecewiseDiarization:
    """Load the pipeline with bounded clustering. Raises ModelLoadError if it is missing, broken or refused."""
    name = config.model
    if is_path(name) and not (Path(name).expanduser() / "config.yaml").is_file():
        raise ModelLoadError(f"diarization pipeline {name}: no such directory, or no config.yaml in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # checkpoints of older versions, and TF32 being switched off
            pipeline = _from_pretrained(config)
            pipeline.to(torch.device(config.device))
            _ = pipeline._embedding.min_num_samples  # noqa: SLF001 - found by trying, once, and with warnings
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"diarization pipeline {name} cannot be loaded: {type(error).__name__}") from error
    pipeline.__class__ = PiecewiseDiarization  # the file names its class, which ours only extends
    pipeline.segmentation_batch_size = config.segmentation_batch_size
    pipeline.clustering.filter_embeddings = partial(
        bounded, pipeline.clustering.filter_embeddings, config.max_clustered
    )
    piecewise: PiecewiseDiarization = pipeline
    return piecewise


def is_path(name: str) -> bool:
    """Return whether `name` is meant as a place on this machine, and not as `owner/name` on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).exists()


def _from_pretrained(config: DiarizerConfig) -> Any:
    name = config.model
    pipeline = Pipeline.from_pretrained(Path(name).expanduser() if is_path(name) else name)
    if type(pipeline) is not SpeakerDiarization or hasattr(pipeline, "preprocessors"):
        raise ModelLoadError(f"diarization pipeline {name} is not a plain SpeakerDiarization")
    if not isinstance(getattr(pipeline, "_embedding", None), PyannoteAudioPretrainedSpeakerEmbedding):
        raise ModelLoadError(f"diarization pipeline {name}: its voice encoder is no model of pyannote.audio")
    if not pipeline.instantiated:
        raise ModelLoadError(f"diarization pipeline {name}: its config.yaml sets no params")
    rates_hz = {pipeline._segmentation.model.audio.sample_rate, pipeline._embedding.sample_rate}  # noqa: SLF001
    if rates_hz != {SAMPLE_RATE_HZ}:
        raise ModelLoadError(f"diarization pipeline {name} hears {rates_hz} Hz, not {SAMPLE_RATE_HZ}")
    return pipeline


Filtered = tuple["NDArray[np.float32]", "NDArray[np.int_]", "NDArray[np.int_]"]


def bounded(filter_embeddings: Callable[..., Filtered], most: int, *args: Any, **options: Any) -> Filtered:
    """Return at most `most` of the embeddings that pyannote would cluster, evenly spread over time.

    Both of pyannote's clusterings find the speakers by these, then assign each embedding to the nearest speaker.
    """
    vectors, windows, speakers = filter_embeddings(*args, **options)
    chosen = evenly_spread(len(vectors), most)
    return vectors[chosen], windows[chosen], speakers[chosen]
