"""Decodes a media file into 16 kHz mono int16, in a guarded child process (`child/decode.py`).

The child gets a local path of ours, never a URL or a name from outside. Knows nothing about downloads or jobs.
"""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import langcodes
import numpy as np

from deployments import logs
from deployments.errors import AudioExtractionError, VideoTooLongError
from deployments.extraction import file_kind, limited_process
from deployments.extraction.apart import Apart
from deployments.extraction.protocol import EVERYTHING, Decoded
from deployments.transcriber.protocol import AUTO
from deployments.types import SAMPLE_RATE_HZ
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from deployments.extraction.config import MediaLimits
    from deployments.extraction.protocol import OnFraction, Selection
    from deployments.types import Audio

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,asf,flv,mxf,dv,"
    "wav,w64,aiff,caf,au,mp3,aac,ac3,eac3,flac,ogg,amr,amrnb,amrwb,wv,tta"
)
"""The only containers that are opened: none that names other files (playlists, hls, concat, dash, …)."""
GUESSED_DURATION = frozenset({"mp3", "aac", "ac3", "eac3", "amr", "amrnb", "amrwb", "mpegts", "mpeg"})
"""Demuxers that may estimate the duration from the bit rate, or from timestamps that jump."""
GRACE_S = 1.0
"""Tolerance of the longest duration: encoders round up to whole frames."""
SHORT_SHARE = 0.01
"""A larger difference from the declared length, as a share of it, has a warning."""
SHORT_S = 0.25
"""A smaller difference is ignored: codecs' priming and padding."""
LOST_SHARE = 0.5
"""A file whose length is declared for the whole of it only, has a warning where more is missing."""
LEAST_S = 0.1
"""Less damage, fewer gaps and less clipping have no warning."""
CLIPPED_SHARE = 0.005
OPPOSED_SHARE = 0.1

WHAT_FILES_HAVE = frozenset({"no_track", "no_language", "after_end", "too_many_channels"})
"""Reasons of the child that come with what the file has."""
READ_BYTES = 1 << 20
_SCRIPT = Path(__file__).parent / "child" / "decode.py"
_EXPECTED_BYTES = 8
_log = logs.get_logger("extraction.media")


def extract(
    path: Path,
    *,
    limits: MediaLimits,
    language: str = AUTO,
    selection: Selection = EVERYTHING,
    on_fraction: OnFraction | None = None,
    stop: Event | None = None,
) -> Decoded:
    """See `Decoder`.

    The array has room for the longest video and is filled from the pipe in place: memory that is never written is not
    used, and nothing is copied.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # a link leads to another file, a pipe to a wait
        raise AudioExtractionError(reason="not_media")
    most = round((limits.max_duration_s + GRACE_S) * SAMPLE_RATE_HZ)
    room = Apart(most) if selection.channels == "separate" else Mixed(most)
    words = [*command(path, limits, language), *_asked(selection)]
    try:
        found = _fill(room, words, path, limits, on_fraction=on_fraction, stop=stop)
        audio = room.audio(partial(_check, stop))
    except BaseException:
        room.clear()  # a stored error would keep its frames, and with them an hour of audio
        raise
    length_s = room.samples / SAMPLE_RATE_HZ
    found = _in_part(found, selection)
    warnings = _warnings(found, length_s, told=selection.audio_track is None)
    if room.alike:
        warnings.append(ResultWarning(code=WarningCode.CHANNELS_ALIKE))
    return Decoded(
        audio=audio,
        duration_s=round(max(found["picture_s"], length_s), 3),
        warnings=tuple(warnings),
        channels=room.channels,
    )


class Mixed:
    """Room for the samples of one channel, filled from the pipe in place."""

    channels = 1
    alike = False

    def __init__(self, most_samples: int) -> None:
        self._audio = np.zeros(most_samples, np.int16)
        self._filled = 0

    @property
    def samples(self) -> int:
        """Return how many samples came."""
        return self._filled // 2

    @property
    def is_full(self) -> bool:
        """Return whether there is no room for another byte."""
        return self._filled == self._audio.nbytes

    def read(self, descriptor: int) -> int:
        """Read from a pipe; return the number of bytes."""
        with self._audio.data.cast("B") as room:
            got = os.readv(descriptor, [room[self._filled : self._filled + READ_BYTES]])
        self._filled += got
        return got

    def audio(self, _check: Callable[[], None]) -> Audio:
        """Return what came."""
        return self._audio[: self.samples]

    def clear(self) -> None:
        """Free the memory."""
        self._audio.resize(0, refcheck=False)


def _check(stop: Event | None) -> None:
    if stop is not None and stop.is_set():
        raise limited_process.StoppedError


def _fill(
    room: Mixed | Apart,
    words: list[str],
    path: Path,
    limits: MediaLimits,
    *,
    on_fraction: OnFraction | None,
    stop: Event | None,
) -> dict[str, Any]:
    """Have the child, whose command line is `words`, fill `room`; return its report."""
    expected_bytes = bytearray()

    def read(descriptor: int) -> int:
        if len(expected_bytes) < _EXPECTED_BYTES:
            got = os.read(descriptor, _EXPECTED_BYTES - len(expected_bytes))
            expected_bytes.extend(got)
            return len(got)
        if room.is_full:
            if os.read(descriptor, 1):
                raise VideoTooLongError(limit_min=limits.max_duration_s / 60)
            return 0
        got_bytes = room.read(descriptor)
        if on_fraction is not None and (expected := int.from_bytes(expected_bytes, "little")):
            on_fraction(min(1.0, room.samples / expected))
        return got_bytes

    try:
        ended = limited_process.run(words, limits=_child(limits), read=read, stop=stop)
    except limited_process.ChildTimeoutError:
        raise AudioExtractionError(reason="timeout") from None
    if ended.returncode in {-signal.SIGXCPU, -signal.SIGALRM}:
        raise AudioExtractionError(reason="timeout")
    return _report(ended, path, limits, has_sound=bool(room.samples))


def command(path: Path, limits: MediaLimits, language: str) -> list[str]:
    """Return the command line of the child for `path`."""
    languages = "" if language == AUTO else ",".join(_tags(language))
    bounds = (str(limits.max_duration_s + GRACE_S), str(limits.probe_s))
    return [sys.executable, "-I", str(_SCRIPT), f"file:{path}", DEMUXERS, languages, *bounds]


def _asked(selection: Selection) -> list[str]:
    """Return the argument that tells the child what was chosen; none where nothing was."""
    if selection == EVERYTHING:
        return []
    track = selection.audio_track
    asked = {
        "track": track if isinstance(track, int) else None,
        "languages": _tags(track.lower()) if isinstance(track, str) else None,
        "separate": selection.channels == "separate",
        "start_s": selection.start_s,
        "end_s": selection.end_s,
    }
    return [json.dumps(asked)]


def _tags(language: str) -> list[str]:
    """Return how files tag a language: by ISO 639-1 and the two codes of ISO 639-2."""
    known = langcodes.Language.get(language)
    try:
        return sorted({language, str(known.language), known.to_alpha3(), known.to_alpha3(variant="B")})
    except LookupError:  # no language has this code: a file may be tagged with it all the same
        return [language]


def _report(ended: limited_process.Ended, path: Path, limits: MediaLimits, *, has_sound: bool) -> dict[str, Any]:
    """Return what the child has found. Raises the error that it tells, or that its death means."""
    try:
        found: dict[str, Any] = json.loads(ended.stderr.rpartition("\n")[2])
    except ValueError:
        found = {"error": "died"}
    if "error" not in found and not found["samples"]:
        found = {"error": f"unsupported {found['container']}"}
    if "error" not in found:
        return found
    words = ended.stderr.strip().replace(str(path), "<video>").rpartition("\n")[2][-300:]
    _log.info("not decoded", extra={"kind": found["error"], "returncode": ended.returncode, "stderr": words})
    reason, _, container = str(found["error"]).partition(" ")
    if reason in WHAT_FILES_HAVE:
        raise AudioExtractionError(reason=reason, found=container)
    if reason == "too_long":
        raise VideoTooLongError(limit_min=limits.max_duration_s / 60)
    if reason == "died":  # a child that was killed must not count as the end of the audio
        crashed = has_sound or ended.returncode == -signal.SIGABRT
        raise AudioExtractionError(reason="unsupported" if crashed else "not_media")
    what = file_kind.container_name(container) if container else file_kind.look(path)
    raise AudioExtractionError(reason=reason, found=what)


def _in_part(found: dict[str, Any], selection: Selection) -> dict[str, Any]:
    """Return the report with what the file declares of the part that was chosen."""
    if selection.start_s is None and selection.end_s is None:
        return found
    start_s, end_s = selection.start_s or 0.0, math.inf if selection.end_s is None else selection.end_s
    ends_s = min(end_s, (found["declared_s"] or 0.0) - max(0.0, found["jumped_s"]))
    return found | {"declared_s": max(0.0, ends_s - start_s), "jumped_s": 0.0}


def _warnings(found: dict[str, Any], length_s: float, *, told: bool = True) -> list[ResultWarning]:
    """Return the warnings of a report, with the amounts of its kinds. `told`: also which track was taken."""
    seconds = {
        WarningCode.AUDIO_DAMAGED: (found["damaged_s"], LEAST_S),
        WarningCode.AUDIO_CLIPPED: (found["clipped_s"], max(LEAST_S, CLIPPED_SHARE * length_s)),
        WarningCode.CHANNELS_OPPOSED: (found["opposed_s"], OPPOSED_SHARE * length_s),
    }
    warnings = [
        ResultWarning(code=code, seconds=amount, share=min(1.0, amount / length_s))
        for code, (amount, least) in seconds.items()
        if amount > least
    ]
    if found["gaps_s"] > LEAST_S:
        warnings.append(ResultWarning(code=WarningCode.AUDIO_GAPS, seconds=found["gaps_s"], count=found["gaps"]))
    if found["jumps"]:
        warnings.append(ResultWarning(code=WarningCode.CLOCK_JUMPS, count=found["jumps"]))
    if found["silent"]:
        warnings.append(ResultWarning(code=WarningCode.AUDIO_SILENT, seconds=length_s))
    if told and found["tracks"] > 1:
        track, count = found["track"], found["tracks"]
        warnings.append(ResultWarning(code=WarningCode.TRACK_CHOSEN, track=track, count=count))
    return warnings + _compare(found, length_s)


def _compare(found: dict[str, Any], length_s: float) -> list[ResultWarning]:
    """Return a warning where the decoded length differs from the declared one, which is no more than a hint."""
    declared_s = found["declared_s"]
    if not declared_s or found["container"] in GUESSED_DURATION:
        return []
    by_track = found["declared_by_track"]
    missing_s = declared_s - max(0.0, found["jumped_s"]) - length_s
    least_s = max(SHORT_S, SHORT_SHARE * declared_s)
    if abs(missing_s) <= least_s:
        return []
    if missing_s < 0:
        return [ResultWarning(code=WarningCode.AUDIO_LONGER, seconds=-missing_s)] if by_track else []
    picture_ends_early = 0 < found["picture_s"] < declared_s - max(0.0, found["jumped_s"]) - least_s
    if by_track or picture_ends_early or missing_s > max(LOST_SHARE * declared_s, declared_s - found["picture_s"]):
        share = missing_s / declared_s
        return [ResultWarning(code=WarningCode.AUDIO_INCOMPLETE, seconds=missing_s, share=share)]
    return []


def _child(limits: MediaLimits) -> limited_process.ChildLimits:
    return limited_process.ChildLimits(
        wall_s=limits.decode_s,
        cpu_s=max(1, round(limits.decode_s)),
        address_space_bytes=limits.address_space_mb << 20,
    )
