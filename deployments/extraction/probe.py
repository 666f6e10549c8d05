"""Reads the metadata of a media file in a guarded child process (`probe_script.py`)."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import logs
from deployments.errors import AudioExtractionError
from deployments.extraction import limited_process

if TYPE_CHECKING:
    from threading import Event

DEMUXERS = "mov,mp4,m4a,matroska,webm,mpegts,avi,wav,mp3,flac,ogg,aac,asf,flv"
"""The only containers that are opened: no playlists (hls, concat, dash, …), which name other files."""
GUESSED_DURATION = frozenset({"mp3", "aac"})
"""Demuxers that may estimate the duration from the bit rate of the first frames."""

MAX_RATE_HZ = 768_000
MAX_CHANNELS = 64

_SCRIPT = Path(__file__).with_name("probe_script.py")
_MAX_ANSWER_BYTES = 64_000
_log = logs.get_logger("extraction.probe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Metadata of a file and its first audio stream. Times are seconds from the container's start.

    `duration_s`: declared for the whole file, or None. `audio_end_s`: declared for the audio stream, or None.
    `audio_start_s`: time of the first audio packet.
    """

    demuxer: str
    duration_s: float | None
    audio_start_s: float
    audio_end_s: float | None
    only_audio: bool

    @property
    def duration_is_guess(self) -> bool:
        """Whether `duration_s` may be far from the truth."""
        return self.demuxer in GUESSED_DURATION


def probe(path: Path, *, limits: limited_process.ChildLimits, stop: Event | None = None) -> Media:
    """Read the metadata of the file `path`. Blocks.

    Raises AudioExtractionError: not_media, no_audio, unsupported (no decoder knows the codec), or timeout.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # a link leads to another file, a pipe to a wait
        raise AudioExtractionError(reason="not_media")
    answer = bytearray()

    def read(descriptor: int) -> int:
        got = os.read(descriptor, 8192)
        answer.extend(got)
        return len(got) if len(answer) < _MAX_ANSWER_BYTES else 0

    command = [sys.executable, "-I", str(_SCRIPT), f"file:{path}", DEMUXERS]
    try:
        ended = limited_process.run(command, limits=limits, read=read, stop=stop)
    except limited_process.ChildTimeoutError:
        raise AudioExtractionError(reason="timeout") from None
    found: dict[str, Any] = json.loads(answer) if ended.returncode == 0 and answer else {"error": "died"}
    if "error" in found:
        words = ended.stderr.strip().replace(str(path), "<video>").rpartition("\n")[2][-300:]
        _log.info("not media", extra={"kind": found["error"], "returncode": ended.returncode, "stderr": words})
        raise AudioExtractionError(reason="not_media")
    return _media(found)


def _media(found: dict[str, Any]) -> Media:
    audio = found["audio"]
    if audio is None:
        raise AudioExtractionError(reason="no_audio")
    if audio["codec"] is None or audio["rate_hz"] > MAX_RATE_HZ or audio["channels"] > MAX_CHANNELS:
        raise AudioExtractionError(reason="unsupported")
    zero_s = found["start_s"]
    return Media(
        demuxer=found["format"],
        duration_s=found["duration_s"],
        audio_start_s=audio["start_s"] - zero_s,
        audio_end_s=None if audio["end_s"] is None else audio["end_s"] - zero_s,
        only_audio=found["only_audio"],
    )
