"""What every diarizer does, in calls that take seconds, and what passes between the calls.

A piece owns the windows that start in it, so that all pieces together equal the whole video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from deployments.diarizer.config import SpeakerCounts
    from deployments.types import Audio, Span, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The activity of the local speakers inside each sliding window that starts in a piece.

    `scores`: shape (windows, frames, local speakers), float32, 0-1 (0 or 1 from a powerset model). Local speakers of
    different windows are unrelated. There may be no windows, as in many last pieces.
    """

    first_window: int
    duration_s: float
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The voices of the local speakers of a `Segmentation`.

    `vectors`: shape (windows, local speakers, dimension), float32, NaN for speakers with too little speech.
    """

    first_window: int
    vectors: NDArray[np.float32]


class DiarizerEngine(Protocol):
    """A diarizer in three steps."""

    def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Return the local speakers in the windows that start inside `piece` of the whole video's `audio`."""
        ...

    def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Return the voices of the local speakers of `segmentation`."""
        ...

    def cluster(
        self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings], **counts: Unpack[SpeakerCounts]
    ) -> list[Turn]:
        """Return the turns of the whole video in order of time; turns of different speakers may overlap.

        Speakers are numbered in order of first speech. The counts cannot be met where there is too little speech.
        Raises ValueError if pieces are missing, or the counts contradict each other.
        """
        ...

    def check(self) -> None:
        """Raise where a part could not be loaded in the background, or the device has failed."""
        ...
