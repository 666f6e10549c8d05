"""What every recogniser looks like, and the one place that names them all.

Knows nothing of Ray, jobs or where the audio came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Span, Transcript

AUTO = "auto"
"""The language code that asks the engine to find the language itself."""
BRIEF_S = 7.0
"""The most that is heard at once where only the language is wanted, and quickly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One item of a batch: speech of one job, cut at pauses."""

    audio: Audio
    """The chunk's own samples."""
    start_s: float
    """Where the first of them lies in the video."""
    language: str
    """An ISO 639-1 code, or `AUTO`."""
    speech_share: float = 1.0
    """How much of it the detector heard as speech, 0-1."""
    speech: tuple[Span, ...] | None = None
    """Where in it the detector heard speech, in the video's time; None where nothing is known of it."""


class Recognizer(Protocol):
    """Speech to text. Chunks of one call may belong to different jobs and be of different languages."""

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """One answer per chunk, in order; a chunk that fails fails alone, as an exception in its place.

        Times are absolute (`start_s` added). Words lie inside their chunk, in order, without overlap. A chunk's
        answer depends on nothing but the chunk (and chance, where an engine has to guess). Safe to call from several
        threads. Raises what hits the whole batch, such as a lack of memory.
        """
        ...

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:
        """Per chunk, in order, the probabilities of the languages; none where the engine cannot tell.

        `brief`: in a tenth of the time, and a little less surely, of chunks no longer than `BRIEF_S`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a caller wants to know of a chunk: its words, or its language only."""

    chunk: Chunk
    language_only: bool = False
    brief: bool = False


def answer(engine: Recognizer, questions: Sequence[Question]) -> list[Transcript | dict[str, float] | Exception]:
    """One answer per question, in order, by at most one call of each kind."""
    heard = iter(engine.transcribe([each.chunk for each in questions if not each.language_only]))
    found = {
        brief: iter(engine.detect([q.chunk for q in questions if q.language_only and q.brief == brief], brief=brief))
        for brief in (False, True)
    }
    return [next(found[each.brief]) if each.language_only else next(heard) for each in questions]
