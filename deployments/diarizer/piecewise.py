"""pyannote's `SpeakerDiarization` on scores and embeddings that were computed piece by piece.

Importing this module imports pyannote.audio (4 s of CPU), so it is imported late. pyannote's telemetry is turned
off here, before that import.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from deployments.lean_imports import as_if_not_installed
from deployments.types import Turn

os.environ["PYANNOTE_METRICS_ENABLED"] = "0"  # no telemetry

with warnings.catch_warnings(), as_if_not_installed("matplotlib", "rich", "torchvision", "transformers"):
    warnings.simplefilter("ignore")  # torchcodec finds no system ffmpeg, which is not needed: audio comes in memory
    from pyannote.audio.pipelines import SpeakerDiarization
    from pyannote.core import SlidingWindow, SlidingWindowFeature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyannote.core import Annotation


class PiecewiseDiarization(SpeakerDiarization):  # type: ignore[misc]  # pyannote has no types
    """Reads scores and embeddings from the `file` mapping instead of computing them from audio."""

    def get_segmentations(self, file: dict[str, Any], hook: object = None) -> SlidingWindowFeature:  # noqa: ARG002
        """Return the scores, shape (windows, frames, local speakers)."""
        return self.over_windows(file["scores"])

    def get_embeddings(self, file: dict[str, Any], active: SlidingWindowFeature, **_: object) -> NDArray[np.float32]:
        """Return the embeddings, shape (windows, local speakers, dimension).

        Speakers that are silent in a window get a finite vector: pyannote removes them after clustering, but VBx's
        assignment computes their distances before, and fails on NaN.
        """
        embeddings: NDArray[np.float32] = file["embeddings"].copy()
        embeddings[active.data.sum(axis=1) == 0] = 1.0
        return embeddings

    def over_windows(self, values: NDArray[Any]) -> SlidingWindowFeature:
        """Return `values` per window, from the first window on, in pyannote's form."""
        inference = self._segmentation
        return SlidingWindowFeature(values, SlidingWindow(duration=inference.duration, step=inference.step))

    def turns(
        self, scores: NDArray[np.float32], embeddings: NDArray[np.float32], *, exclusive: bool = False, **counts: Any
    ) -> list[Turn]:
        """Return the turns of the whole video, speakers numbered in order of first speech.

        `exclusive`: at each moment only the likeliest speaker, so that turns never overlap. `counts`: `SpeakerCounts`.
        Raises ValueError if they contradict each other.
        """
        file = {"uri": "video", "scores": scores.copy(), "embeddings": embeddings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyannote warns of too little speech for the requested count
            output = self.apply(file, **counts)
        return in_order(output.exclusive_speaker_diarization if exclusive else output.speaker_diarization)


def in_order(annotation: Annotation) -> list[Turn]:
    """Return the turns of `annotation` in order of time, speakers numbered in order of first speech."""
    numbers: dict[str, int] = {}
    tracks = sorted(annotation.itertracks(yield_label=True), key=lambda track: (track[0].start, track[0].end))
    return [
        Turn(start_s=segment.start, end_s=segment.end, speaker=numbers.setdefault(label, len(numbers)))
        for segment, _, label in tracks
    ]
