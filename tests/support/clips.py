"""Media files made on the spot by the ffmpeg that the product uses: a second of silence, then a second of 1 kHz."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

from deployments.extraction.samples import binary

if TYPE_CHECKING:
    from pathlib import Path

TONE_HZ = 1000
TONE_DBFS = -9.03
"""RMS of a sine of amplitude 0.5."""

SOUND = "aevalsrc='if(gte(t,1),0.5*sin(2*PI*1000*t),0)':c={layout}:s={rate}:d=2"
PICTURE = "testsrc=s=64x48:r=10:d=2"

GOOD: dict[str, str] = {
    "aac.mp4": "-c:v mpeg4 -c:a aac",
    "mp3.mp4": "-c:v mpeg4 -c:a libmp3lame",
    "fragments.mp4": "-c:v mpeg4 -c:a aac -movflags frag_keyframe+empty_moov",
    "pcm.mov": "-c:v mpeg4 -c:a pcm_s16be",
    "opus.mkv": "-c:v mpeg4 -c:a libopus",
    "vorbis.webm": "-c:v libvpx -c:a libvorbis",
    "opus.webm": "-c:v libvpx -c:a libopus",
    "live.webm": "-c:v libvpx -c:a libopus -live 1",
    "mp3.avi": "-c:v mpeg4 -c:a libmp3lame",
    "aac.ts": "-c:v mpeg2video -c:a aac",
    "mp3.flv": "-c:v flv -c:a libmp3lame",
    "wma.asf": "-c:v mpeg4 -c:a wmav2",
    "pcm.wav": "-vn -c:a pcm_s16le",
    "float.wav": "-vn -c:a pcm_f32le",
    "flac.flac": "-vn -c:a flac",
    "vorbis.ogg": "-vn -c:a libvorbis",
    "opus.ogg": "-vn -c:a libopus",
    "mp3.mp3": "-vn -c:a libmp3lame",
    "aac.m4a": "-vn -c:a aac",
    "adts.aac": "-vn -c:a aac",
}


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([binary(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def make(path: Path, options: str, *, layout: str = "stereo", rate: int = 48_000) -> Path:
    """The clip in the form that `options` ask for."""
    sound = SOUND.format(layout=layout, rate=rate)
    run_ffmpeg("-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", sound, *options.split(), path)
    return path


def silence(path: Path, duration_s: int, *, format_tag: int = 1) -> Path:
    """A WAV file of silence, 8 kHz mono: the samples are a hole in the file."""
    size = duration_s * 8000 * 2
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, format_tag, 1, 8000, 16_000, 2, 16)
    path.write_bytes(b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + form + b"data" + struct.pack("<I", size))
    os.truncate(path, size + 44)
    return path
