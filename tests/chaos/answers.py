"""What stages without a model answer: made of the audio that they got, so that another job's audio would show.

Functions with the signatures of the deployments' methods. Knows nothing of Ray or of time.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from deployments.diarizer.protocol import Embeddings, Segmentation
from deployments.types import (
    FRAMES_PER_S,
    SAMPLE_RATE_HZ,
    Emotion,
    Span,
    Tracks,
    Transcript,
    Turn,
    Utterance,
    Word,
    WordProsody,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Segment

SENTENCE_S, PAUSE_S = 1.6, 0.4
WORDS = 4
"""Of a chunk."""
TURN_S = 2.0
LANGUAGE = "en"
MOODS = ("neutral", "happy", "sad")


def detect(_audio: Audio, piece: Span) -> list[Span]:
    """Sentences and pauses."""
    starts = np.arange(piece.start_s, piece.end_s, SENTENCE_S + PAUSE_S).tolist()
    return [Span(start_s=start_s, end_s=min(start_s + SENTENCE_S, piece.end_s)) for start_s in starts]


def detect_language(_audio: Audio, _chunk: Span, _job_id: str, *, brief: bool = False) -> dict[str, float]:
    """No doubt, at a glance or with care."""
    del brief
    return {LANGUAGE: 1.0}


def transcribe(audio: Audio, chunk: Span, _language: str, _job_id: str, _speech: object = None) -> Transcript:
    """Sentences of a word that is named after the samples under it."""
    edges = np.linspace(chunk.start_s, chunk.end_s, WORDS + 1).tolist()
    text = " ".join(_name(audio, Span(start_s=a, end_s=b)) for a, b in pairwise(edges))
    heard = Utterance(start_s=chunk.start_s, end_s=chunk.end_s, text=text, confidence=0.9)
    return Transcript(language=LANGUAGE, utterances=(heard,))


def _name(audio: Audio, span: Span) -> str:
    return f"w{zlib.crc32(np.ascontiguousarray(span.of(audio)).tobytes()):08x}."


def align(_audio: Audio, transcript: Transcript, _job_id: str) -> Transcript:
    """Words of equal length."""
    return replace(transcript, utterances=tuple(_timed(each) for each in transcript.utterances))


def _timed(utterance: Utterance) -> Utterance:
    texts = utterance.text.split()
    edges = np.linspace(utterance.start_s, utterance.end_s, len(texts) + 1).tolist()
    words = (
        Word(start_s=start_s, end_s=end_s, text=text, probability=0.9)
        for text, start_s, end_s in zip(texts, edges, edges[1:], strict=False)
    )
    return replace(utterance, words=tuple(words))


def segment(audio: Audio, piece: Span) -> Segmentation:
    """One window a piece."""
    scores = np.ones((1, 4, 2), np.float32)
    return Segmentation(first_window=round(piece.start_s), duration_s=len(audio) / SAMPLE_RATE_HZ, scores=scores)


def embed(_audio: Audio, segmentation: Segmentation) -> Embeddings:
    """A vector for each speaker of each window."""
    return Embeddings(first_window=segmentation.first_window, vectors=np.ones((1, 2, 8), np.float32))


def cluster(segmentations: Sequence[Segmentation], _embeddings: Sequence[Embeddings]) -> list[Turn]:
    """Two voices in turn."""
    duration_s = segmentations[0].duration_s
    starts = np.arange(0, duration_s, TURN_S).tolist()
    return [
        Turn(start_s=start_s, end_s=min(start_s + TURN_S, duration_s), speaker=number % 2)
        for number, start_s in enumerate(starts)
    ]


def tracks(_audio: Audio, piece: Span) -> Tracks:
    """A tone."""
    frames = round(piece.duration_s * FRAMES_PER_S)
    level_dbfs = np.full(frames, -20, np.float32)
    return Tracks(start_s=piece.start_s, f0_hz=np.full(frames, 200, np.float32), level_dbfs=level_dbfs)


def measure(_tracks: Tracks, segments: Sequence[Segment]) -> list[list[WordProsody]]:
    """The tone's."""
    return [[WordProsody(volume_db=-20.0, pitch_hz=200.0, voiced=True)] * len(each.words) for each in segments]


def analyze(_audio: Audio, _tracks: Tracks | None, segments: Sequence[Segment], _job_id: str) -> list[Emotion | None]:
    """A mood per speaker."""
    return [Emotion(label=MOODS[each.speaker % len(MOODS)], confidence=0.5) for each in segments]
