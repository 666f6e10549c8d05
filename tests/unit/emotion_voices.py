"""Constructed voices: tracks and segments whose level, pitch and swing are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.types import FRAMES_PER_S, Segment, Tracks, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

SEGMENT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How one segment sounds; `f0_hz` NaN is silence. The pitch swings by `swing_st` semitones to either side."""

    level_dbfs: float = -30.0
    f0_hz: float = 120.0
    swing_st: float = 1.0
    text: str = ""


def segment(
    start_s: float, end_s: float, *, speaker: int = 0, text: str = "", confidence: float = 0.9, language: str = "en"
) -> Segment:
    """A segment whose words share its time."""
    texts = text.split()
    edges = np.linspace(start_s, end_s, len(texts) + 1)
    words = tuple(
        Word(start_s=float(a), end_s=float(b), text=word, probability=confidence)
        for word, a, b in zip(texts, edges, edges[1:], strict=False)
    )
    return Segment(start_s=start_s, end_s=end_s, speaker=speaker, words=words, language=language)


def scene(turns: Sequence[tuple[int, Voice]]) -> tuple[Tracks, list[Segment]]:
    """Segments of two seconds, one after the other, as (speaker, voice)."""
    frames = round(SEGMENT_S * FRAMES_PER_S)
    swing = np.sin(np.arange(frames) / 10)
    tracks = Tracks(
        start_s=0.0,
        f0_hz=np.concatenate([v.f0_hz * 2 ** (v.swing_st * swing / 12) for _, v in turns]).astype(np.float32),
        level_dbfs=np.concatenate([np.full(frames, v.level_dbfs, np.float32) for _, v in turns]),
    )
    segments = [
        segment(i * SEGMENT_S, (i + 1) * SEGMENT_S, speaker=speaker, text=voice.text)
        for i, (speaker, voice) in enumerate(turns)
    ]
    return tracks, segments
