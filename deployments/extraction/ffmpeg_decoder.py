"""The decoder `ffmpeg`, the only module that runs it: a local media file becomes 16 kHz mono int16.

It never gets a URL or a name from outside. Times count from the container's start: audio that begins later is padded
with silence, gaps inside are filled. Knows nothing about downloads or jobs.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import ffmpeg
import imageio_ffmpeg
import numpy as np

from deployments import logs
from deployments.errors import AudioExtractionError, VideoTooLongError
from deployments.extraction import limited_process
from deployments.extraction.probe import DEMUXERS, Media, probe
from deployments.extraction.protocol import Decoded
from deployments.types import SAMPLE_RATE_HZ
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from deployments.extraction.config import MediaLimits
    from deployments.extraction.protocol import OnFraction
    from deployments.types import Audio

GRACE_S = 1.0
"""Tolerance of the longest duration: encoders round up to whole frames."""
SHORT_SHARE = 0.01
"""A larger difference from the audio's declared length, as a share of it, has a warning."""
LOST_SHARE = 0.5
"""A larger missing share is an error."""
SHORT_S = 0.25
"""A smaller difference is ignored: codecs' priming and padding."""

READ_BYTES = 1 << 20
_DAMAGED = ResultWarning(code=WarningCode.AUDIO_DAMAGED)
_log = logs.get_logger("extraction.media")


def extract(
    path: Path, *, limits: MediaLimits, on_fraction: OnFraction | None = None, stop: Event | None = None
) -> Decoded:
    """See `Decoder`: probe `path`, then decode its first audio stream."""
    media = probe(path, limits=_child(limits, limits.probe_s), stop=stop)
    if not media.duration_is_guess and (media.duration_s or 0.0) > limits.max_duration_s + GRACE_S:
        raise VideoTooLongError(limit_min=limits.max_duration_s / 60)
    audio, warnings = decode(path, media, limits=limits, on_fraction=on_fraction, stop=stop)
    length_s = len(audio) / SAMPLE_RATE_HZ
    duration_s = length_s if media.duration_is_guess else max(media.duration_s or 0.0, length_s)
    return Decoded(audio=audio, duration_s=round(duration_s, 3), warnings=warnings + _compare(media, length_s))


def decode(
    path: Path, media: Media, *, limits: MediaLimits, on_fraction: OnFraction | None = None, stop: Event | None = None
) -> tuple[Audio, tuple[ResultWarning, ...]]:
    """Decode the first audio stream of `path`, which was probed as `media`, with warnings.

    The array has room for the longest video and is filled from the pipe in place: memory that is never written is not
    used, and nothing is copied.

    Raises:
        AudioExtractionError: ffmpeg could not decode it, crashed, or was too slow.
        VideoTooLongError: There are more samples than the limit.
        limited_process.StoppedError: `stop` was set.
    """
    audio = np.zeros(round((limits.max_duration_s + GRACE_S) * SAMPLE_RATE_HZ), np.int16)
    # ffmpeg puts 0 at the container's start, but in a transport stream at the start of the streams that it decodes.
    lead = max(0, round(media.audio_start_s * SAMPLE_RATE_HZ)) if media.demuxer == "mpegts" else 0
    if lead >= len(audio):
        raise VideoTooLongError(limit_min=limits.max_duration_s / 60)
    try:
        with audio[lead:].data.cast("B") as room:
            filled, damaged = _fill(room, path, media, limits=limits, on_fraction=on_fraction, stop=stop)
    except BaseException:
        audio.resize(0, refcheck=False)  # a stored error would keep its frames, and with them an hour of audio
        raise
    return audio[: lead + filled // 2], (_DAMAGED,) if damaged else ()


def _fill(
    room: memoryview,
    path: Path,
    media: Media,
    *,
    limits: MediaLimits,
    on_fraction: OnFraction | None,
    stop: Event | None,
) -> tuple[int, bool]:
    """Have ffmpeg fill `room`; return the number of bytes that came, and whether parts could not be decoded."""
    filled = 0
    expected_bytes = 2 * SAMPLE_RATE_HZ * (media.audio_end_s or media.duration_s or float("inf"))

    def read(descriptor: int) -> int:
        nonlocal filled
        if filled == len(room):
            if os.read(descriptor, 1):
                raise VideoTooLongError(limit_min=limits.max_duration_s / 60)
            return 0
        got = os.readv(descriptor, [room[filled : filled + READ_BYTES]])
        filled += got
        if on_fraction is not None:
            on_fraction(min(1.0, filled / expected_bytes))
        return got

    try:
        ended = limited_process.run(command(path, limits), limits=_child(limits, limits.decode_s), read=read, stop=stop)
    except limited_process.ChildTimeoutError:
        raise AudioExtractionError(reason="timeout") from None
    if ended.returncode != 0 or not filled:
        words = ended.stderr.replace(str(path), "<video>")[-300:]
        _log.info("ffmpeg complained", extra={"returncode": ended.returncode, "bytes": filled, "stderr": words})
    if ended.returncode == -signal.SIGXCPU:
        raise AudioExtractionError(reason="timeout")
    if ended.returncode < 0 or not filled:  # a killed process must not count as the end of the audio
        raise AudioExtractionError(reason="unsupported" if ended.returncode else "no_audio")
    return filled, bool(ended.returncode)


def command(path: Path, limits: MediaLimits) -> list[str]:
    """Return the command line for `path`. `async=1` with `first_pts=0` fills a late start and gaps with silence."""
    resample = f"aresample=osr={SAMPLE_RATE_HZ}:ochl=mono:osf=s16:async=1:first_pts=0"
    source = ffmpeg.input(f"file:{path}", protocol_whitelist="file", format_whitelist=DEMUXERS, threads=1)
    output = ffmpeg.output(source["a:0"], "pipe:1", format="s16le", af=resample)
    settings = ("-nostdin", "-hide_banner", "-v", "error", "-max_alloc", str(limits.max_alloc_mb << 20))
    compiled: list[str] = output.global_args(*settings).compile(cmd=binary())
    return compiled


def binary() -> str:
    """Return the system's ffmpeg if there is one, else that of imageio-ffmpeg."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def _compare(media: Media, length_s: float) -> tuple[ResultWarning, ...]:
    """Return warnings where the decoded length differs from the declared one.

    Only the audio stream's own length counts for an error, and for audio that is too long: the picture may be longer or
    shorter than the sound. Raises AudioExtractionError where more than half of the audio is missing.
    """
    if media.duration_is_guess:
        return ()
    own_s = media.audio_end_s if media.audio_end_s or not media.only_audio else media.duration_s
    declared_s = own_s or media.duration_s or 0.0
    missing_s = declared_s - length_s
    if abs(missing_s) <= max(SHORT_S, SHORT_SHARE * declared_s):
        return ()
    if missing_s < 0:
        return (ResultWarning(code=WarningCode.AUDIO_LONGER, seconds=-missing_s),) if own_s else ()
    if missing_s > LOST_SHARE * declared_s and own_s:
        raise AudioExtractionError(reason="incomplete")
    if own_s or missing_s > LOST_SHARE * declared_s:
        share = missing_s / declared_s
        return (ResultWarning(code=WarningCode.AUDIO_INCOMPLETE, seconds=missing_s, share=share),)
    return ()


def _child(limits: MediaLimits, wall_s: float) -> limited_process.ChildLimits:
    return limited_process.ChildLimits(
        wall_s=wall_s, cpu_s=max(1, round(wall_s)), address_space_bytes=limits.address_space_mb << 20
    )
