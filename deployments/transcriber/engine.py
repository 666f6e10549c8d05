"""What every recogniser looks like, and the one place that names them all.

Knows nothing of Ray, jobs or where the audio came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.config import TranscriberConfig
    from deployments.types import Audio, Transcript

AUTO = "auto"
"""The language code that asks the engine to find the language itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One item of a batch: speech of one job, cut at pauses."""

    audio: Audio
    """The chunk's own samples."""
    start_s: float
    """Where the first of them lies in the video."""
    language: str
    """An ISO 639-1 code, or `AUTO`."""


class Recognizer(Protocol):
    """Speech to text. Chunks of one call may belong to different jobs and be of different languages."""

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """One answer per chunk, in order; a chunk that fails fails alone, as an exception in its place.

        Times are absolute (`start_s` added). Words lie inside their chunk, in order, without overlap. A chunk's
        answer depends on nothing but the chunk. Safe to call from several threads.
        """
        ...


def create(config: TranscriberConfig) -> Recognizer:
    """Load the engine that `config` names."""
    from deployments.transcriber.sphinx import PocketsphinxRecognizer

    engines = {"pocketsphinx": PocketsphinxRecognizer}
    return engines[config.engine](config)
