"""Creates sample videos: a sound file under a moving test picture."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import ffmpeg
import imageio_ffmpeg
import soundfile

from deployments.extraction import limited_process

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = "testsrc2=size=320x180:rate=12"
LIMITS = limited_process.ChildLimits(wall_s=120, cpu_s=240, address_space_bytes=4 << 30, file_size_bytes=1 << 30)


class VideoNotMadeError(Exception):
    """The sound could not be read, or the video could not be written; the message has the reason."""


def make_test_video(audio_path: Path, out_path: Path) -> None:
    """Write an MP4 of `audio_path`'s sound (AAC) and length; the picture is h264, or mpeg4 where ffmpeg lacks x264.

    Raises VideoNotMadeError where `audio_path` is no sound file, or ffmpeg can write neither.
    """
    for codec in ({"vcodec": "libx264", "preset": "ultrafast", "pix_fmt": "yuv420p"}, {"vcodec": "mpeg4"}):
        ended = limited_process.run(command(audio_path, out_path, **codec), limits=LIMITS, read=_drop)
        if ended.returncode == 0:
            return
    raise VideoNotMadeError(ended.stderr)


def command(audio_path: Path, out_path: Path, **codec: str) -> list[str]:
    """Return the command line. The picture's length is a number, since ffmpeg's `-shortest` is inexact."""
    try:
        length_s = soundfile.info(audio_path).duration
    except soundfile.LibsndfileError as error:
        raise VideoNotMadeError(str(error)) from error
    sound = ffmpeg.input(f"file:{audio_path}")["a:0"]
    picture = ffmpeg.input(f"{PICTURE}:duration={length_s}", format="lavfi")["v:0"]
    options = {"acodec": "aac", "audio_bitrate": "128k", "movflags": "+faststart", **codec}
    output = ffmpeg.output(picture, sound, f"file:{out_path}", **options)
    settings = ("-nostdin", "-hide_banner", "-v", "error", "-y")
    compiled: list[str] = output.global_args(*settings).compile(cmd=binary())
    return compiled


def binary() -> str:
    """Return the system's ffmpeg if there is one, else that of imageio-ffmpeg."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def _drop(descriptor: int) -> int:
    return len(os.read(descriptor, 4096))
