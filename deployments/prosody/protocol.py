"""What every prosody engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deployments.types import Audio, Span, Tracks


class ProsodyEngine(Protocol):
    """Measures pitch and level over time."""

    def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Return pitch and level inside `piece` of the whole video's `audio`.

        The tracks of consecutive pieces, joined, equal those of the whole video bit by bit.
        """
        ...
