"""Runs in a child process of its own: reads a media file's metadata with PyAV and prints it as JSON.

Started by path with `python -I`, so it imports nothing of this project. Arguments: the file as `file:PATH`, and the
allowed demuxers. A crash, a hang or a memory bomb in a demuxer ends this process only.
"""

import json
import math
import sys
from typing import Any


def seconds(value: int | None, base: Any) -> float | None:
    """Convert `value` in units of `base` into seconds."""
    return None if value is None else float(value * base)


def tagged_s(stream: Any) -> float | None:
    """Return the time of the stream's end by Matroska's DURATION tag (HH:MM:SS.fraction)."""
    try:
        hours, minutes, rest = stream.metadata["DURATION"].split(":")
        end_s = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    except (KeyError, ValueError, OverflowError):
        return None
    return end_s if math.isfinite(end_s) else None


def describe(container: Any) -> dict[str, Any]:
    """Return the container's metadata. Times are seconds on the file's own time scale."""
    streams = list(container.streams)
    audio = next((stream for stream in streams if stream.type == "audio"), None)
    found: dict[str, Any] = {
        "format": container.format.name,
        "start_s": seconds(container.start_time, 1e-6) or 0.0,
        "duration_s": seconds(container.duration, 1e-6),
        "only_audio": all(stream.type == "audio" for stream in streams),
        "audio": None,
    }
    if "matroska" in found["format"] and found["duration_s"] is not None:
        found["duration_s"] -= found["start_s"]  # in Matroska it counts from time 0
    if audio is not None:
        codec = audio.codec_context
        start_s = seconds(audio.start_time, audio.time_base)
        length_s = seconds(audio.duration, audio.time_base)
        start_s = found["start_s"] if start_s is None else start_s
        found["audio"] = {
            "codec": None if codec is None else codec.name,
            "rate_hz": 0 if codec is None else codec.sample_rate,
            "channels": 0 if codec is None else codec.channels,
            "start_s": start_s,
            "end_s": tagged_s(audio) if length_s is None else start_s + length_s,
        }
    return found


def main() -> None:
    """Print the description, or {"error": …}."""
    import av

    path, demuxers = sys.argv[1:]
    try:
        with av.open(path, options={"protocol_whitelist": "file", "format_whitelist": demuxers}) as container:
            found = describe(container)
    except Exception as error:  # noqa: BLE001 - whatever a file can raise; a traceback would end in a log
        found = {"error": type(error).__name__}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
