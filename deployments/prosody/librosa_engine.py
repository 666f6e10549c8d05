"""The engine `librosa`: level and autocorrelation by librosa, SwiftF0's network as second opinion (`pitch.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.prosody.tracks import tracks
from deployments.types import SAMPLE_RATE_HZ, Span

if TYPE_CHECKING:
    from deployments.prosody.pitch import PitchRange
    from deployments.types import Audio, Tracks


class LibrosaEngine:
    """See `ProsodyEngine`."""

    def __init__(self, *, within: PitchRange) -> None:
        self._within = within
        self.tracks(np.ones(SAMPLE_RATE_HZ, np.int16), Span(start_s=0, end_s=1))  # compiles and loads what is lazy

    def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Return pitch and level inside `piece`."""
        return tracks(audio, piece, within=self._within)
