"""The stages' answers as bytes, and back: exactly, or an error. JSON, and numpy's own form for arrays; never pickle.

Knows nothing of where the bytes are kept.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from deployments.transcriber.passages import Passage  # noqa: TC001  pydantic reads the annotations
from deployments.types import AudioInfo, Emotion, Segment, Span, Tracks, Transcript, Turn, WordProsody
from deployments.warnings import ResultWarning  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import TypeAdapter


class Step(StrEnum):
    """What an attempt may leave for the next one."""

    EXTRACTION = "extraction"
    DETECTION = "detection"
    PARTIAL_TRANSCRIPT = "hearing"
    """Of a transcription that is under way: what is heard so far."""
    TRANSCRIPTION = "transcription"
    DIARIZATION = "diarization"
    TRACKS = "tracks"
    PROSODY = "prosody"
    EMOTION = "emotion"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialTranscript:
    """The chunks, each with the language to hear it in, and the transcripts of those that are heard, by number."""

    chunks: list[Passage]
    language_probability: float | None
    """How sure the language of most of them is; None where it was given."""
    warnings: list[ResultWarning]
    """Of the languages."""
    transcripts: dict[int, Transcript]


_FORMS: dict[Step, Any] = {
    Step.EXTRACTION: AudioInfo,
    Step.DETECTION: list[Span],
    Step.PARTIAL_TRANSCRIPT: PartialTranscript,
    Step.TRANSCRIPTION: PartialTranscript,
    Step.DIARIZATION: list[Turn],
    Step.PROSODY: list[list[WordProsody]],
    Step.EMOTION: list[Emotion | None],
}


def encode(step: Step, answer: Any) -> bytes:
    """The answer of a step."""
    return _packed(answer) if step is Step.TRACKS else _adapter(_FORMS[step]).dump_json(answer)


def decode(step: Step, body: bytes) -> Any:
    """What `encode` was given.

    Raises:
        Exception: Of one kind or another: this is not such an answer, or not in the form that this release gives it.
    """
    if step is Step.TRACKS:
        return _unpacked(body)
    answer = _adapter(_FORMS[step]).validate_json(body, strict=True)
    if encode(step, answer) != body:  # a field that another release knew, or did not
        raise ValueError("this is an answer in the form of another release")
    return answer


def spans_as_bytes(spans: Sequence[Span]) -> bytes:
    """What tells these spans from others: a stage's input, to know its answer by."""
    return _adapter(list[Segment | Span]).dump_json(list(spans))


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    """Made when first used: it takes some 20 ms, and a driver's start is waited for."""
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def _packed(tracks: Tracks) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, start_s=tracks.start_s, f0_hz=tracks.f0_hz, level_dbfs=tracks.level_dbfs)
    return file.getvalue()


def _unpacked(body: bytes) -> Tracks:
    import numpy as np

    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        start_s, f0_hz, level_dbfs = (arrays[name] for name in ("start_s", "f0_hz", "level_dbfs"))
    if not f0_hz.dtype == level_dbfs.dtype == np.float32 or f0_hz.shape != level_dbfs.shape:
        raise ValueError("these are no tracks")
    return Tracks(start_s=float(start_s), f0_hz=f0_hz, level_dbfs=level_dbfs)
