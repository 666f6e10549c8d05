"""What every word aligner does, and what it is given. Knows no engine: `registry.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignItem:
    """One item of a batch: a chunk's transcript, and what it was heard in."""

    audio: Audio
    """The whole video's, read-only: the utterances' own times say where they lie."""
    transcript: Transcript


class WordAligner(Protocol):
    """Gives times to the words of transcripts, which may belong to different jobs and be of different languages."""

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        """Each item's transcript with every utterance's words timed: inside it, in order, without overlap.

        One answer per item, in order; an item that fails fails alone, as an exception in its place. Utterances that
        have words already stay as they are. Safe to call from several threads. Raises what hits the whole batch: a lack
        of memory, a dead device.
        """
        ...

    def check(self) -> None:
        """Raise where the engine cannot work any more."""
        ...
