"""The engines that measure prosody, by the name that the settings use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from deployments.prosody.pitch import PitchRange
from deployments.prosody.tracks import tracks
from deployments.types import SAMPLE_RATE_HZ, Span

if TYPE_CHECKING:
    from deployments.prosody.config import ProsodyConfig
    from deployments.types import Audio, Tracks


class ProsodyEngine(Protocol):
    """Turns sound into tracks."""

    def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Pitch and level of `piece` of the whole video's `audio`; joined pieces equal the whole in one go."""


class LibrosaEngine:
    """librosa's framing, levels and autocorrelation, and SwiftF0's network; what is made of them is in `pitch`."""

    def __init__(self, *, within: PitchRange) -> None:
        self._within = within
        self.tracks(np.ones(SAMPLE_RATE_HZ, np.int16), Span(start_s=0, end_s=1))  # loads what is loaded lazily

    def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Pitch and level of `piece`."""
        return tracks(audio, piece, within=self._within)


def create(config: ProsodyConfig) -> ProsodyEngine:
    """The engine that `config` names, ready to run at full speed."""
    return LibrosaEngine(within=PitchRange(min_hz=config.f0_min_hz, max_hz=config.f0_max_hz))
