"""What every speech detector does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from deployments.types import Audio, Span


class SpeechEngine(Protocol):
    """Finds speech."""

    def detect(self, audio: Audio, piece: Span) -> list[Span]:
        """Return the speech inside `piece` of the whole video's `audio`.

        Spans are in ascending order and do not overlap. They touch only where the engine cut long speech.
        """
        ...
