"""The steps' answers as bytes, and back: exactly, or an error. JSON, and numpy's own form for arrays; never pickle."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.transcriber.passages import Passage  # noqa: TC001  pydantic reads the annotations
from deployments.types import AudioInfo, Emotion, Segment, Span, Tracks, Transcript, Turn, WordProsody
from deployments.warnings import ResultWarning  # noqa: TC001
from serve_app.jobs.stages import Step
from serve_app.pipeline.quality import Overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import TypeAdapter

FORM = 3
"""Raise it with every change of the types below: a checkpoint of another form is not read, and its step runs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialTranscript:
    """The chunks of a video, each with its language, and the transcripts of those that are done, by chunk number."""

    chunks: list[Passage]
    language_probability: float | None
    """Of the language of most chunks, 0-1; None where the request names it."""
    warnings: list[ResultWarning]
    """About the languages."""
    transcripts: dict[int, Transcript]


_TYPES: dict[Step, Any] = {
    Step.EXTRACTION: AudioInfo,
    Step.DETECTION: list[Span],
    Step.PARTIAL_TRANSCRIPT: PartialTranscript,
    Step.TRANSCRIPTION: PartialTranscript,
    Step.DIARIZATION: list[Turn],
    Step.OVERLAP: Overlap,
    Step.PROSODY: list[tuple[WordProsody, ...]],
    Step.EMOTION: list[Emotion | None],
}
"""Of all steps but `TRACKS`, whose answer is arrays."""


def source_of(*parts: str | bytes) -> str:
    """Return a digest, hexadecimal, of what an answer is computed from and of the form that it is stored in."""
    digest = hashlib.sha256(b"form %d:" % FORM)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def encode(step: Step, answer: Any) -> bytes:
    """Return the answer of `step` as bytes."""
    if step is Step.TRACKS:
        return _pack(answer)
    mixed = step is Step.EXTRACTION and answer.channels == 1  # as the release before has it, which knows no channels
    return _adapter(_TYPES[step]).dump_json(answer, exclude={"channels"} if mixed else None)


def decode(step: Step, body: bytes) -> Any:
    """Return what `encode` was given. Raises some exception if `body` is no answer of `step` in this release's form."""
    if step is Step.TRACKS:
        return _unpack(body)
    answer = _adapter(_TYPES[step]).validate_json(body, strict=True)
    if encode(step, answer) != body:  # it lacks a field of this release, or has one of another
        raise ValueError("this is an answer in the form of another release")
    return answer


def spans_as_bytes(spans: Sequence[Span]) -> bytes:
    """Return bytes that are equal for equal spans or segments: what a step is given, as a part of its `source_of`."""
    return _adapter(list[Segment | Span]).dump_json(list(spans))


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    """Return an adapter, made when first used: it takes some 20 ms, and a job actor's start is waited for."""
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def _pack(tracks: Tracks) -> bytes:
    file = io.BytesIO()
    np.savez(file, start_s=tracks.start_s, f0_hz=tracks.f0_hz, level_dbfs=tracks.level_dbfs)
    return file.getvalue()


def _unpack(body: bytes) -> Tracks:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        start_s, f0_hz, level_dbfs = (arrays[name] for name in ("start_s", "f0_hz", "level_dbfs"))
    if not f0_hz.dtype == level_dbfs.dtype == np.float32 or f0_hz.shape != level_dbfs.shape:
        raise ValueError("these are no tracks")
    return Tracks(start_s=float(start_s), f0_hz=f0_hz, level_dbfs=level_dbfs)
