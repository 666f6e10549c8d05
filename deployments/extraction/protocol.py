"""The parts of an extraction, and what every decoder does. Knows no decoder: `registry.py` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from deployments.errors import MLServerError
from deployments.transcriber.protocol import AUTO

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from deployments.types import Audio
    from deployments.warnings import ResultWarning

OnFraction: TypeAlias = Callable[[float], None]
"""Called with the share that is done, 0-1, from the thread that decodes."""


class AudioMissingError(MLServerError):
    """The audio of this run is missing or damaged and has to be extracted."""


class Part(StrEnum):
    """The parts of an extraction, in order."""

    DOWNLOAD = "download"
    EXTRACT = "extract"
    """Decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a file is listened to, as a job chooses it; the defaults: all of it, the channels mixed."""

    audio_track: int | str | None = None
    """A track's number, from 1, in the file's order, or its language (ISO 639, two or three letters)."""
    channels: Literal["mix", "separate"] = "mix"
    start_s: float | None = None
    end_s: float | None = None
    """The part of the video, on its clock."""


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """The audio of a media file, or of the part that was chosen. `duration_s` is at least as long as its audio.

    `audio` has `channels` of equal length, one after the other: see `deployments.types.AudioInfo`.
    """

    audio: Audio
    duration_s: float
    warnings: tuple[ResultWarning, ...] = ()
    channels: int = 1


class Decoder(Protocol):
    """Decodes a media file."""

    def __call__(
        self,
        path: Path,
        *,
        language: str = AUTO,
        selection: Selection = EVERYTHING,
        on_fraction: OnFraction | None = None,
        stop: Event | None = None,
    ) -> Decoded:
        """Decode an audio track of `path`: of several, one in `language` (ISO 639-1, or `AUTO`), if there is one.

        `selection` names the track, the part, and whether channels are kept apart. Times count from the start of the
        file's first stream of sound or picture, or of the part. Blocks; setting `stop` ends it within a second.

        Raises:
            AudioExtractionError: The file is no media file, is encrypted, has no audio, or not what `selection` names,
                its codec is not supported, or decoding takes too long.
            VideoTooLongError: Sound or picture, or the part of it, is longer than the limit, by counting.
            limited_process.StoppedError: `stop` was set.
        """
