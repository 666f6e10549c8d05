"""The engine `pyannote-segmentation`: speech by the scores of the segmentation network. Knows nothing of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.speech_detector.network import FRAME_STEP_S, FRAME_WIDTH_S, FRAMES, Grid, SegmentationNetwork
from deployments.types import SAMPLE_RATE_HZ, Audio, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deployments.speech_detector.config import SpeechDetectorConfig

CONTEXT_S = 10.0
"""Audio on both sides of a piece that is scored, too, so that speech at a border is continued from before it."""


class PyannoteSpeechEngine:
    """Finds speech where any of the network's local speakers is active, as whisperx uses this network."""

    def __init__(self, config: SpeechDetectorConfig) -> None:
        self.config = config
        self._network = SegmentationNetwork(device=config.device, threads=config.threads)

    def detect(self, audio: Audio, piece: Span) -> list[Span]:
        """Return the speech inside `piece`. The scores there equal those of the whole video."""
        duration_s = len(audio) / SAMPLE_RATE_HZ
        scored = Span(start_s=max(0.0, piece.start_s - CONTEXT_S), end_s=min(duration_s, piece.end_s + CONTEXT_S))
        times_s, scores = self.scores(audio, scored)
        spans = [
            span
            for start, end in self._regions(times_s, scores)
            for span in cut_long(times_s, scores, Span(start_s=start, end_s=end), self.config.max_span_s)
        ]
        inside = (
            Span(start_s=max(span.start_s, piece.start_s), end_s=min(span.end_s, piece.end_s, duration_s))
            for span in spans
        )
        return [span for span in inside if span.duration_s > 0]

    def scores(self, audio: Audio, span: Span) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return times in seconds and speech scores, 0-1, of the frames in `span`; both have shape (frames,)."""
        grid = Grid(samples=len(audio), step_s=self.config.step_s)
        windows = grid.covering(span.start_s, span.end_s)
        activities = self._network.scores(audio, grid, windows).max(axis=2, initial=0.0)
        first, scores = overlap_add(activities, grid, windows)
        times_s = np.arange(first, first + len(scores), dtype=np.float64) * FRAME_STEP_S + FRAME_WIDTH_S / 2
        inside = (times_s >= span.start_s) & (times_s < span.end_s)
        return times_s[inside], scores[inside]

    def _regions(self, times_s: NDArray[np.float64], scores: NDArray[np.float32]) -> list[tuple[float, float]]:
        config = self.config
        regions = hysteresis(scores, config.onset, config.offset)
        seconds = [(float(times_s[i]) - FRAME_STEP_S / 2, float(times_s[j - 1]) + FRAME_STEP_S / 2) for i, j in regions]
        filled = merge(seconds, gap_s=config.min_silence_s)
        padded = [(a - config.pad_s, b + config.pad_s) for a, b in filled if b - a >= config.min_speech_s]
        return merge(padded, gap_s=0.0)


def overlap_add(activities: NDArray[np.float32], grid: Grid, windows: range) -> tuple[int, NDArray[np.float32]]:
    """Average the windows that cover a frame, Hamming-weighted, as pyannote's `Inference.aggregate` does.

    `activities`: shape (windows, 293). Returns the number of the first frame and the scores from it on.
    """
    starts = [round(window * grid.step_s / FRAME_STEP_S) for window in windows]
    if not starts:
        return 0, np.zeros(0, np.float32)
    taper = np.hamming(FRAMES)
    total = np.zeros(starts[-1] - starts[0] + FRAMES)
    weight = np.zeros_like(total)
    for start, activity in zip(starts, activities, strict=True):
        seen = slice(start - starts[0], start - starts[0] + FRAMES)
        total[seen] += taper * activity
        weight[seen] += taper
    return starts[0], (total / np.maximum(weight, 1e-12)).astype(np.float32)


def hysteresis(scores: NDArray[np.float32], onset: float, offset: float) -> list[tuple[int, int]]:
    """Return index ranges [i, j) that start above `onset` and last until below `offset`."""
    decided = np.flatnonzero((scores > onset) | (scores < offset))
    if not len(decided):
        return []
    last = np.searchsorted(decided, np.arange(len(scores)), side="right") - 1
    on = (last >= 0) & (scores[decided[np.maximum(last, 0)]] > onset)
    edges = np.flatnonzero(np.diff(on, prepend=False, append=False))
    return [(int(i), int(j)) for i, j in edges.reshape(-1, 2)]


def merge(regions: list[tuple[float, float]], *, gap_s: float) -> list[tuple[float, float]]:
    """Join ascending `regions` with at most `gap_s` between them."""
    merged: list[tuple[float, float]] = []
    for start, end in regions:
        if merged and start - merged[-1][1] <= gap_s:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def cut_long(times_s: NDArray[np.float64], scores: NDArray[np.float32], span: Span, max_s: float) -> list[Span]:
    """Cut `span` where the score is lowest, repeatedly, until no part is longer than `max_s`.

    A cut lies in the second half of a part's maximum length, as in whisperx's `Binarize` (Bain et al., "WhisperX",
    Interspeech 2023), and leaves at least an eighth of it, so that no sliver remains at the end.
    """
    parts = []
    while span.duration_s > max_s:
        latest_s = min(span.start_s + max_s, span.end_s - max_s / 8)
        inside = (times_s >= span.start_s + max_s / 2) & (times_s <= latest_s)
        cut_s = float(times_s[inside][np.argmin(scores[inside])])
        parts.append(Span(start_s=span.start_s, end_s=cut_s))
        span = Span(start_s=cut_s, end_s=span.end_s)
    return [*parts, span]
