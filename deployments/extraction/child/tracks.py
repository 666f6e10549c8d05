"""Which of several audio tracks is the one that somebody listens to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENVELOPE_HZ = 40
WINDOW_S = 4
SYLLABLES_HZ = (2.0, 8.0)
"""Speech gets louder and softer with its syllables, about four times a second (Houtgast and Steeneken 1985)."""
DEPTH = 0.35
"""Modulation at the rate of syllables, as a share of the mean: speech has more, music and noise have less."""
SILENT = 1e-3
"""An envelope (RMS, full scale 1) below is no speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """An audio track of the file. `number` counts from 1; `language` is its tag (ISO 639-1 or -2), or ""."""

    number: int
    stream: int
    language: str
    default: bool


def by_tags(tracks: list[Track], languages: frozenset[str]) -> list[Track]:
    """Return the tracks that the tags prefer: those in the asked language, else those that alone are the default.

    An empty list: the tags say nothing.
    """
    asked = [track for track in tracks if track.language in languages]
    default = [track for track in asked or tracks if track.default]
    if asked:
        return default if 0 < len(default) < len(asked) else asked
    return default if len(default) < len(tracks) else []


def speech_s(envelope: NDArray[np.float32]) -> float:
    """Return the seconds of a track that sound like speech.

    `envelope` is its RMS at `ENVELOPE_HZ`. A stretch of `WINDOW_S` sounds like speech where the modulation of its
    envelope at 2-8 Hz is deep (Scheirer and Slaney, "Construction and evaluation of a robust multifeature speech/music
    discriminator", 1997).
    """
    length = WINDOW_S * ENVELOPE_HZ
    padded = np.pad(envelope, (0, -len(envelope) % length))
    windows = padded.reshape(-1, length)
    spectra = np.abs(np.fft.rfft(windows, axis=1)) / length
    hz = np.fft.rfftfreq(length, 1 / ENVELOPE_HZ)
    band = (hz >= SYLLABLES_HZ[0]) & (hz <= SYLLABLES_HZ[1])
    depth = np.sqrt(2 * (spectra[:, band] ** 2).sum(axis=1)) / np.maximum(spectra[:, 0], SILENT)
    return float(WINDOW_S * np.count_nonzero(depth > DEPTH))
