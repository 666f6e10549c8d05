"""The engine `pyannote-ge2e`, which needs no download: pyannote's pipeline on whisperx's network and GE2E voices.

`segment` and `embed` need torch only. `cluster` needs pyannote.audio, whose import takes 4 s of CPU: a thread imports
it from the start, so that the replica answers before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Unpack

import numpy as np

from deployments.device import check_device
from deployments.diarizer.pieces import has_no_voice, until, whole
from deployments.diarizer.protocol import Embeddings, Segmentation
from deployments.diarizer.voices import Voices
from deployments.speech_detector.network import Grid, SegmentationNetwork
from deployments.types import SAMPLE_RATE_HZ, Audio, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.diarizer.config import DiarizerConfig, SpeakerCounts
    from deployments.diarizer.piecewise import PiecewiseDiarization
    from deployments.types import Turn


class PyannoteGE2EEngine:
    """Segmentation by PyanNet, voices by GE2E, clustering and reconstruction by pyannote's `SpeakerDiarization`."""

    def __init__(self, config: DiarizerConfig) -> None:
        self.config = config
        self._network = SegmentationNetwork(device=config.device, threads=config.threads)
        self._voices = Voices(device=config.device, threads=config.threads)
        loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pyannote-import")
        self._pipeline = loader.submit(self._load_pipeline)
        loader.shutdown(wait=False)

    def _load_pipeline(self) -> PiecewiseDiarization:
        from deployments.diarizer.pyannote_pipeline import build

        pipeline: PiecewiseDiarization = build(self.config, self._network.network, self._voices)
        return pipeline

    def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Return the scores of the windows that start in `piece`."""
        grid = Grid(samples=len(audio), step_s=self.config.step_s)
        windows = grid.starting_in(piece.start_s, piece.end_s)
        scores = self._network.scores(audio, grid, windows)
        return Segmentation(first_window=windows.start, duration_s=len(audio) / SAMPLE_RATE_HZ, scores=scores)

    def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Return one vector per window and local speaker."""
        active = segmentation.scores > self.config.activity_threshold
        windows = np.arange(segmentation.first_window, segmentation.first_window + len(active), dtype=np.float64)
        vectors = self._voices.describe(audio, windows * self.config.step_s, active)
        return Embeddings(first_window=segmentation.first_window, vectors=vectors)

    def cluster(
        self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings], **counts: Unpack[SpeakerCounts]
    ) -> list[Turn]:
        """Return the turns of the whole video, none later than its end."""
        scores, vectors = whole(segmentations, embeddings)
        if has_no_voice(vectors):
            return []
        turns = self._pipeline.result().turns(scores, vectors, **self.config.counts(**counts))
        return until(segmentations[0].duration_s, turns)

    def check(self) -> None:
        """Raise the error of pyannote's import, if it has failed, or of the device."""
        if self._pipeline.done():
            self._pipeline.result()
        check_device(self.config.device)
