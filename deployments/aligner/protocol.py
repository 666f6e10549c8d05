"""What every word aligner does, and what it is given. Knows no engine: `registry.py` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignItem:
    """A chunk's transcript and its audio: one item of a batch."""

    audio: Audio
    """The whole video's, read-only; the utterances' times refer to it."""
    transcript: Transcript


class WordAligner(Protocol):
    """Times the words of transcripts, which may be of different jobs and languages."""

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        """Return each item's transcript with all words timed, inside their utterance, in order and without overlap.

        One answer per item, in order; an exception takes the place of an item that failed by itself. Utterances that
        have words stay as they are. Safe to call from several threads. Raises what fails the whole batch: a lack of
        memory, a dead device.
        """

    def check(self) -> None:
        """Raise where the engine cannot compute any more."""
