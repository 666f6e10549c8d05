"""What a diarizer can do, in calls that take seconds, and what passes between the calls.

The union of the pieces is what the whole video would give in one: pieces own the windows that start in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from deployments.types import Audio, Span, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Who is active when, inside each sliding window that starts in a piece.

    `scores`: shape (windows, frames, local speakers), float32, 0-1 (0 or 1 from a powerset model). Local speakers of
    different windows have nothing to do with each other. May have no windows: the last pieces often do.
    """

    first_window: int
    duration_s: float
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """What the local speakers of a `Segmentation` sound like.

    `vectors`: shape (windows, local speakers, dimension), float32, NaN for who says too little.
    """

    first_window: int
    vectors: NDArray[np.float32]


class DiarizerEngine(Protocol):
    """A diarizer in three steps."""

    def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Find the local speakers in the windows that start inside `piece` of the whole video's `audio`."""
        ...

    def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Describe the local speakers' voices."""
        ...

    def cluster(
        self,
        segmentations: Sequence[Segmentation],
        embeddings: Sequence[Embeddings],
        *,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        num_speakers: int | None = None,
    ) -> list[Turn]:
        """All pieces' turns in order of time; turns of different speakers may overlap.

        Speakers are numbered in order of first speech. The counts are wishes where the speech is too short for them.

        Raises:
            ValueError: pieces are missing, or the counts contradict each other.
        """
        ...

    def check(self) -> None:
        """Raise what went wrong where a part that is still loading could not be loaded, or the device has failed."""
        ...
