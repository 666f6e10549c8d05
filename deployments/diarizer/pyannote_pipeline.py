"""pyannote's `SpeakerDiarization` over whisperx's segmentation network and GE2E voices, for `pyannote_ge2e.py`.

Importing this module imports pyannote.audio (4 s of CPU), so it is imported late. Knows nothing of files or Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from deployments.diarizer.pieces import evenly_spread
from deployments.diarizer.piecewise import PiecewiseDiarization
from deployments.diarizer.voices import DIMENSION, Voices
from deployments.speech_detector.network import FRAME_STEP_S, FRAME_WIDTH_S, SPEAKERS, WINDOW_S, PyanNet

# isort: split
# pyannote comes after `piecewise`, which imports it without its telemetry and warnings.
from pyannote.audio import Model
from pyannote.audio.core.plda import PLDA
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.pipelines.clustering import AgglomerativeClustering
from pyannote.core import SlidingWindow, SlidingWindowFeature

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyannote.audio.pipelines import SpeakerDiarization

    from deployments.diarizer.config import DiarizerConfig


class BoundedClustering(AgglomerativeClustering):  # type: ignore[misc]  # pyannote has no types
    """Agglomerative clustering of at most `max_clustered` embeddings; the others join the nearest centroid.

    The memory of linkage grows by the square of the count: 1.6 GB for 14,400, and an hour of dense talk may have
    21,600. Clustered embeddings are spread evenly over time. On longer recordings a cluster must also have a share of
    all (`min_cluster_share`), else the few odd moments of any hour would count as speakers.
    """

    def __init__(self, config: DiarizerConfig) -> None:
        super().__init__(metric="cosine")
        self.config = config
        self.settings = {
            "method": "average",
            "threshold": config.clustering_threshold,
            "min_cluster_size": config.min_cluster_size,
        }
        self.instantiate(self.settings)

    def __call__(
        self, embeddings: NDArray[np.float32], *args: Any, **kwargs: Any
    ) -> tuple[NDArray[np.int_], NDArray[np.float64], NDArray[np.float64]]:
        """Cluster as pyannote does, but mark local speakers without a vector by -2 instead of cluster 0."""
        hard, soft, centroids = super().__call__(embeddings, *args, **kwargs)
        hard[np.isnan(embeddings).any(axis=-1)] = -2
        return hard, soft, centroids

    def filter_embeddings(
        self, embeddings: NDArray[np.float32], segmentations: SlidingWindowFeature
    ) -> tuple[NDArray[np.float32], NDArray[np.int_], NDArray[np.int_]]:
        """Return the embeddings to cluster, which have enough speech of their own, with their windows and speakers.

        Where there is none, pyannote's own, lower threshold is used.
        """
        share = self.config.min_own_speech_s / WINDOW_S
        sure: tuple[NDArray[np.float32], NDArray[np.int_], NDArray[np.int_]]
        sure = super().filter_embeddings(embeddings, segmentations, min_active_ratio=share)
        return sure if len(sure[0]) else super().filter_embeddings(embeddings, segmentations)

    def cluster(self, embeddings: NDArray[np.float32], **counts: Any) -> NDArray[np.int_]:
        """Return the cluster of each of `embeddings`, which are in order of time."""
        linked = evenly_spread(len(embeddings), self.config.max_clustered)
        min_size = max(self.config.min_cluster_size, round(self.config.min_cluster_share * len(linked)))
        linkage = AgglomerativeClustering(metric=self.metric)
        linkage.instantiate(self.settings | {"min_cluster_size": min_size})
        clusters: NDArray[np.int_] = linkage.cluster(embeddings[linked], **counts)
        if len(linked) == len(embeddings):
            return clusters
        centroids = [embeddings[linked][clusters == k].mean(axis=0) for k in range(clusters.max() + 1)]
        nearest: NDArray[np.int_] = cdist(embeddings, np.stack(centroids), metric=self.metric).argmin(axis=1)
        return nearest


class WindowScores(Model):  # type: ignore[misc]  # pyannote has no types
    """The segmentation network as pyannote's pipeline expects it."""

    def __init__(self, network: PyanNet) -> None:
        super().__init__()
        self.network = network
        self.specifications = Specifications(
            problem=Problem.MULTI_LABEL_CLASSIFICATION,
            resolution=Resolution.FRAME,
            duration=WINDOW_S,
            classes=[f"speaker#{i + 1}" for i in range(SPEAKERS)],
            permutation_invariant=True,
        )

    @property
    def receptive_field(self) -> SlidingWindow:
        """The window of one frame."""
        return SlidingWindow(start=0.0, duration=FRAME_WIDTH_S, step=FRAME_STEP_S)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Score waveforms, shape (batch, 1, samples): returns (batch, frames, local speakers)."""
        scores: torch.Tensor = self.network(waveforms)
        return scores


class VoiceVectors(Model):  # type: ignore[misc]  # pyannote has no types
    """The voice encoder as pyannote's pipeline expects it: one masked 5 s window at a time."""

    dimension = DIMENSION

    def __init__(self, voices: Voices) -> None:
        super().__init__()
        self.voices = voices

    def forward(self, waveforms: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Encode waveforms, (batch, 1, samples), where `weights`, (batch, frames), are above 0, to (batch, 256)."""
        audio = (waveforms[:, 0].numpy() * 2**15).round().astype(np.int16)
        active = weights.numpy()[:, None, :, None] > 0
        start_s = np.zeros(1)
        vectors = [self.voices.describe(a, start_s, m)[0, 0] for a, m in zip(audio, active, strict=True)]
        return torch.from_numpy(np.stack(vectors))


class NoPLDA(PLDA):  # type: ignore[misc]  # pyannote has no types
    """Replaces the PLDA, which pyannote's pipeline requires and only VBx clustering uses."""

    def __init__(self) -> None:
        pass


def build(
    config: DiarizerConfig, network: PyanNet, voices: Voices, kind: type[SpeakerDiarization] = PiecewiseDiarization
) -> SpeakerDiarization:
    """Return the pipeline with the settings of `config`. `kind` `SpeakerDiarization` computes everything from audio."""
    pipeline = kind(
        segmentation=WindowScores(network),
        segmentation_step=config.step_s / WINDOW_S,
        embedding=VoiceVectors(voices),
        embedding_exclude_overlap=True,
        plda=NoPLDA(),
        clustering="AgglomerativeClustering",
    )
    pipeline.clustering = BoundedClustering(config)
    segmentation = {"threshold": config.activity_threshold, "min_duration_off": config.min_gap_s}
    instantiated: SpeakerDiarization = pipeline.instantiate(
        {"segmentation": segmentation, "clustering": pipeline.clustering.settings}
    )
    return instantiated
