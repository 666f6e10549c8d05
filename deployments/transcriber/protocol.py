"""What every recogniser does, and what it is given. Knows no engine: `registry.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Span, Transcript

AUTO = "auto"
"""The language code for which the engine detects the language."""
BRIEF_S = 7.0
"""Longest chunk of a brief language detection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Speech of one job, cut at pauses: one item of a batch."""

    audio: Audio
    """The chunk's own samples."""
    start_s: float
    """Time of the first sample in the video."""
    language: str
    """An ISO 639-1 code, or `AUTO`."""
    speech_share: float = 1.0
    """Share of the chunk that the detector found to be speech, 0-1."""
    speech: tuple[Span, ...] | None = None
    """Detected speech inside the chunk, in seconds of the video; None where it is not known."""
    vocabulary: tuple[str, ...] = ()
    """Names and terms that may be said, the most important ones first."""


class Recognizer(Protocol):
    """Transcribes speech. Chunks of one call may be of different jobs and languages."""

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """Return one answer per chunk, in order; an exception takes the place of a chunk that failed by itself.

        Times are seconds of the video. Words lie inside their chunk, in order, without overlap. An answer depends only
        on its chunk, and on chance where an engine samples. Safe to call from several threads. Raises what fails the
        whole batch, such as a lack of memory.
        """

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:
        """Return per chunk, in order, the probability of each language; empty where the engine cannot detect it.

        `brief`: for chunks no longer than `BRIEF_S`, in a fraction of the time and a little less reliably.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A chunk, and whether its words or only its language are asked for."""

    chunk: Chunk
    language_only: bool = False
    brief: bool = False


def answer(engine: Recognizer, questions: Sequence[Question]) -> list[Transcript | dict[str, float] | Exception]:
    """Return one answer per question, in order, with at most one engine call per kind of question."""
    transcripts = iter(engine.transcribe([each.chunk for each in questions if not each.language_only]))
    languages = {
        brief: iter(engine.detect([q.chunk for q in questions if q.language_only and q.brief == brief], brief=brief))
        for brief in (False, True)
    }
    return [next(languages[each.brief]) if each.language_only else next(transcripts) for each in questions]
