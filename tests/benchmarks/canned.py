"""Answers of engines that compute nothing, of the size and shape that a dense talk between two voices would have.

In place of the engines' methods: `self` is the engine, which is not asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.diarizer.protocol import Embeddings, Segmentation
from deployments.prosody.words import UNKNOWN
from deployments.speech_detector.network import FRAMES, SPEAKERS, Grid
from deployments.types import (
    FRAMES_PER_S,
    SAMPLE_RATE_HZ,
    Span,
    Tracks,
    Transcript,
    Turn,
    Utterance,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.aligner.protocol import AlignItem
    from deployments.transcriber.protocol import Chunk
    from deployments.types import Audio, Segment, WordProsody

SENTENCE_S = 4.0
PAUSE_S = 0.3
WORDS_PER_S = 2.5
TURN_S = 8.0
WINDOW_STEP_S = 0.5
"""Of the diarizer's windows: pyannote's own."""
DIMENSION = 256
"""Of a voice's vector."""
LANGUAGES = 99
MOODS = 4
"""Of the emotion classifier."""
LANGUAGE = "en"


def detect(_: Any, _audio: Audio, piece: Span) -> list[Span]:
    """Sentences and pauses."""
    starts = np.arange(piece.start_s, piece.end_s, SENTENCE_S + PAUSE_S).tolist()
    return [Span(start_s=start_s, end_s=min(start_s + SENTENCE_S, piece.end_s)) for start_s in starts]


def transcribe(_: Any, chunks: Sequence[Chunk]) -> list[Transcript]:
    """An utterance per chunk."""
    return [_transcript(chunk.start_s, len(chunk.audio) / SAMPLE_RATE_HZ) for chunk in chunks]


def _transcript(start_s: float, duration_s: float) -> Transcript:
    text = " ".join(["word"] * max(1, round(duration_s * WORDS_PER_S)))
    heard = Utterance(start_s=start_s, end_s=start_s + duration_s, text=text, confidence=0.9)
    return Transcript(language=LANGUAGE, utterances=(heard,))


def languages(_: Any, chunks: Sequence[Chunk]) -> list[dict[str, float]]:
    """As many languages as Whisper has."""
    unlikely = {f"l{number}": 0.1 / LANGUAGES for number in range(LANGUAGES - 1)}
    return [{LANGUAGE: 0.9} | unlikely for _ in chunks]


def align(_: Any, items: Sequence[AlignItem]) -> list[Transcript]:
    """Words of equal length."""
    return [
        replace(item.transcript, utterances=tuple(_timed(each) for each in item.transcript.utterances))
        for item in items
    ]


def _timed(utterance: Utterance) -> Utterance:
    texts = utterance.text.split()
    edges = np.linspace(utterance.start_s, utterance.end_s, len(texts) + 1).tolist()
    words = (
        Word(start_s=start_s, end_s=end_s, text=text, probability=0.9)
        for text, start_s, end_s in zip(texts, edges, edges[1:], strict=False)
    )
    return replace(utterance, words=tuple(words))


def segment(_: Any, audio: Audio, piece: Span) -> Segmentation:
    """Scores of all windows of the piece."""
    windows = Grid(samples=len(audio), step_s=WINDOW_STEP_S).starting_in(piece.start_s, piece.end_s)
    scores = np.ones((len(windows), FRAMES, SPEAKERS), np.float32)
    return Segmentation(first_window=windows.start, duration_s=len(audio) / SAMPLE_RATE_HZ, scores=scores)


def embed(_: Any, _audio: Audio, segmentation: Segmentation) -> Embeddings:
    """A vector for each speaker of each window."""
    vectors = np.ones((len(segmentation.scores), SPEAKERS, DIMENSION), np.float32)
    return Embeddings(first_window=segmentation.first_window, vectors=vectors)


def cluster(_: Any, segmentations: Sequence[Segmentation], _embeddings: object, **_counts: object) -> list[Turn]:
    """Two voices in turn."""
    duration_s = segmentations[0].duration_s
    starts = np.arange(0, duration_s, TURN_S).tolist()
    return [
        Turn(start_s=start_s, end_s=min(start_s + TURN_S, duration_s), speaker=number % 2)
        for number, start_s in enumerate(starts)
    ]


def tracks(_: Any, _audio: Audio, piece: Span) -> Tracks:
    """A tone."""
    frames = round(piece.duration_s * FRAMES_PER_S)
    level_dbfs = np.full(frames, -20, np.float32)
    return Tracks(start_s=piece.start_s, f0_hz=np.full(frames, 200, np.float32), level_dbfs=level_dbfs)


def measure(_tracks: Tracks, segments: Sequence[Segment]) -> list[tuple[WordProsody, ...]]:
    """The floor value for each word."""
    return [(UNKNOWN,) * len(each.words) for each in segments]


def judge(_: Any, windows: Sequence[Audio]) -> list[NDArray[np.float32]]:
    """All the same."""
    return [np.full(MOODS, 1 / MOODS, np.float32)] * len(windows)
