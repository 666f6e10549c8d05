"""Runs in a child process of its own: reads a media file once and writes the sound that somebody hears.

Started by path with `python -I`. Arguments: the file as `file:PATH`, the allowed demuxers, the languages of the asked
track (ISO 639 codes separated by commas, or ""), the longest sound in seconds, the longest time of opening in seconds,
and where the caller chose what is listened to, `Asked` as JSON.

Standard output: the expected number of samples (8 bytes, little-endian; 0: unknown), then the samples: 16 kHz, mono,
int16. Where channels are to be kept apart, their number (8 bytes, little-endian) stands before the samples, and a
sample of each comes in turn. Standard error, at the end: one line of JSON, see `Report`, or {"error": …}. A crash, a
hang or a memory bomb in a demuxer or decoder ends this process only.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[3]))

import av
import numpy as np

from deployments.extraction.child.choice import NOTHING, Asked, RefusedError, asked_tracks, channels_apart
from deployments.extraction.child.clock import ByteClock, PacketClock
from deployments.extraction.child.sound import (
    RATE_HZ,
    WHOLE,
    Output,
    Report,
    Sound,
    TooLongError,
    Window,
    as_float,
    low_frequency_channel,
)
from deployments.extraction.child.tracks import ENVELOPE_HZ, Track, by_tags, speech_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

BEYOND_S = 4.0
"""So much is read behind the part that is asked for: what comes later decides about jitter, levels and the filter."""
STILL_PICTURE_S = 60.0
"""A picture that stands longer counts as long as this: nobody can tell it from a timestamp that is wrong."""
WITHOUT_TIMES = frozenset({"mp3", "aac", "ac3", "eac3", "amr", "amrnb", "amrwb"})
"""Containers that are the bare stream: times of packets are counted by the demuxer."""
LONGEST_BYTES = {"mp3": 1441}
"""Of a frame of MP3: 320 kbit/s at 32 kHz, padded."""
AMR_FRAME_S, AMR_PAUSE_BYTES = 0.02, 7
"""A frame of AMR, and the size up to which it holds a pause (3GPP TS 26.101: SID and NO_DATA)."""
ID3_HEAD, APE_HEAD = 10, 32
"""Bytes of the head of a tag."""
READ_ERRORS = 20
"""So many in a row end the file."""


class GrownError(Exception):
    """Streams have appeared that were not there at first. PyAV says so at the end of the file, by an IndexError."""


class File:
    """A media file. Opens it anew for each pass: the first pass listens only where the tags choose no track."""

    def __init__(self, path: str, demuxers: str) -> None:
        self._path = path
        self._demuxers = demuxers

    def open(self) -> Any:
        """Open the file; use it as a context."""
        options = {"protocol_whitelist": "file", "format_whitelist": self._demuxers}
        return av.open(self._path, options=options, metadata_errors="replace")

    def tag_bytes(self, position: int) -> int:
        """Return how many bytes of tags (ID3v2, APEv2) begin at a byte of the file: joined MP3s have them inside."""
        with Path(self._path.removeprefix("file:")).open("rb") as raw:
            found = 0
            while size := tag_size(_read_at(raw, position + found)):
                found += size
        return found


def _read_at(raw: BinaryIO, position: int) -> bytes:
    raw.seek(position)
    return raw.read(32)


def tag_size(head: bytes) -> int:
    """Return the size of the tag whose first 32 bytes are `head`; 0: it is none."""
    if head[:3] == b"ID3" and len(head) >= ID3_HEAD:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        return size + ID3_HEAD * (2 if head[5] & 0x10 else 1)
    if head[:8] == b"APETAGEX" and len(head) == APE_HEAD:
        has_head = 1 if head[23] & 0x80 else 0
        return int.from_bytes(head[12:16], "little") + APE_HEAD * has_head
    return 0


def is_picture(stream: Any) -> bool:
    """Return whether a stream is the moving picture, no cover."""
    return stream.type == "video" and not stream.disposition & av.stream.Disposition.attached_pic


def zero_s(container: Any) -> float:
    """Return the start of the video: of its first stream of sound or picture, on the file's own time scale."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if (stream.type == "audio" or is_picture(stream)) and stream.start_time is not None
    ]
    return min(starts, default=(container.start_time or 0) / av.time_base)


def packets(container: Any, streams: list[Any]) -> Iterator[Any]:
    """Return the packets of some streams, also those behind a place that cannot be read. Raises GrownError."""
    errors = 0
    while errors < READ_ERRORS:
        try:
            for packet in container.demux(streams):
                errors = 0
                yield packet
        except av.FFmpegError as error:
            if isinstance(error, av.EOFError):
                return
            errors += 1
        except IndexError:
            raise GrownError from None
        else:
            return


def frames(packet: Any) -> list[Any] | None:
    """Return the frames of a packet; None where it cannot be decoded."""
    try:
        return [frame for frame in packet.decode() if frame.samples]
    except av.FFmpegError:
        return None if packet.size else []


def listen(file: File, tracks: list[Track], window: Window = WHOLE) -> Track:
    """Decode all tracks and return the one with most speech in `window`; of equals the first."""
    envelopes: dict[int, list[np.ndarray[Any, np.dtype[np.float32]]]] = defaultdict(list)
    rests: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = defaultdict(lambda: np.zeros(0, np.float32))
    with file.open() as container:
        streams = [container.streams[track.stream] for track in tracks]
        for stream in streams:
            stream.thread_count = 1
        begins_s = zero_s(container)
        with suppress(GrownError):
            for packet in packets(container, streams):
                for frame in frames(packet) or ():
                    at_s = window.start_s if frame.time is None else frame.time - begins_s
                    if not window.start_s <= at_s < window.end_s and window is not WHOLE:
                        continue
                    index, hop = packet.stream.index, max(1, round(frame.sample_rate / ENVELOPE_HZ))
                    power = np.concatenate([rests[index], (as_float(frame) ** 2).mean(axis=0)])
                    whole = len(power) - len(power) % hop
                    rests[index] = power[whole:]
                    envelopes[index].append(np.sqrt(power[:whole].reshape(-1, hop).mean(axis=1)))
    speech = [speech_s(np.concatenate(envelopes[t.stream])) if envelopes[t.stream] else 0.0 for t in tracks]
    return tracks[int(np.argmax(speech))]


def decode(file: File, track: Track, report: Report, *, limit_s: float, waits: bool, asked: Asked = NOTHING) -> Output:
    """Decode a track; count sound and picture. Raises TooLongError, or RefusedError where it is encrypted.

    All that lies before the part that is asked for is decoded, too: only so it is the same sound, sample by sample, at
    the same time, as in the whole video. What lies behind it is not read.
    """
    window, ends_early, earlier_jumps = asked.window, False, 0
    with file.open() as container:
        reading = Reading(file, container, track, limit_s=limit_s, window=window)
        channels = channels_apart(container.streams[track.stream]) if asked.separate else None
        output = Output(waits=waits, window=window, channels=channels)
        sound = Sound(output, report, limit_s=limit_s, window=window, channels=None if channels == 1 else channels)
        try:
            for packet in packets(container, reading.streams):
                if reading.place(packet):
                    reading.decode(packet, sound)
                    if window is not WHOLE:
                        read_s = sound.position_s
                        earlier_jumps = reading.clock.jumps if read_s <= window.start_s else earlier_jumps
                        ends_early = read_s > window.end_s + BEYOND_S
                if ends_early:
                    break
        except GrownError:
            sound.lose(reading.unread_s(container.size, sound.position_s))
        if reading.byte_clock is not None and not ends_early:
            sound.lose(reading.byte_clock.rest_s(container.size))
    sound.close()
    report.jumps, report.jumped_s = reading.clock.jumps - earlier_jumps, reading.clock.jumped_s
    picture_s = max((picture.end_s for picture in reading.pictures.values()), default=0.0)
    report.read_s = max(picture_s, output.samples / RATE_HZ)
    report.picture_s = window.overlap_s(0.0, picture_s)
    report.samples, report.silent = output.kept, output.silent
    report.track, report.channels = track.number, channels or 1
    return output


class Reading:
    """One pass over a file: the packets of a track and of the pictures beside it."""

    def __init__(self, file: File, container: Any, track: Track, *, limit_s: float, window: Window) -> None:
        self._file = file
        self._container = container
        self._read_bytes = 0
        self._zero_s = zero_s(container)
        self._limit_s = limit_s
        self._window = window
        self._chosen = container.streams[track.stream]
        self._chosen.thread_count = 1
        self.streams = [self._chosen, *(stream for stream in container.streams if is_picture(stream))]
        self._bases = {stream.index: float(stream.time_base or 0) for stream in self.streams}
        self.clock = PacketClock(may_restart=bool(container.format.flags & av.format.Flags.ts_discont.value))
        self.pictures: dict[int, Picture] = defaultdict(Picture)
        self.byte_clock = (
            ByteClock(LONGEST_BYTES.get(container.format.name, math.inf))
            if container.format.name in WITHOUT_TIMES
            else None
        )

    def place(self, packet: Any) -> bool:
        """Correct the times of a packet, and count it if it is a picture's. Return whether it is of the track."""
        index = packet.stream.index
        self._read_bytes = max(self._read_bytes, (packet.pos or 0) + packet.size)
        base = self._bases[index]
        ours = bool(index == self._chosen.index)
        if packet.dts is None or not base:
            return ours
        length_s = (packet.duration or 0) * base
        offset_s = self.clock.correction(index, packet.dts * base - self._zero_s, length_s)
        if not ours:
            shown_s = (packet.dts if packet.pts is None else packet.pts) * base - self._zero_s + offset_s
            if self._window.overlap_s(0.0, self.pictures[index].show(shown_s, length_s)) > self._limit_s:
                raise TooLongError
        elif offset_s:
            ticks = round(offset_s / base)
            packet.dts += ticks
            packet.pts = None if packet.pts is None else packet.pts + ticks
        return ours

    def unread_s(self, file_bytes: int, read_s: float) -> float:
        """Return how much sound may be behind the last packet: in joined files the same track may have a new number."""
        unread_bytes = max(0, file_bytes - self._read_bytes)
        return read_s * unread_bytes / self._read_bytes if self._read_bytes else 0.0

    def decode(self, packet: Any, sound: Sound) -> None:
        """Decode a packet of the track."""
        if packet.has_sidedata("encryption_info"):
            raise RefusedError(f"protected {self._container.format.name}")
        decoded = frames(packet)
        if decoded is None and self._is_pause(packet):
            self._add_pause(packet, sound)
        elif self.byte_clock is None:
            if decoded is None or packet.is_corrupt:
                sound.lose(float((packet.duration or 0) * packet.time_base))
            for frame in decoded or ():
                at_s = None if frame.time is None else frame.time - self._zero_s
                sound.add(as_float(frame), frame.sample_rate, low_frequency_channel(frame), at_s)
        elif decoded:
            seconds = sum(frame.samples / frame.sample_rate for frame in decoded)
            lost_s = self._lost_s(self.byte_clock, packet, seconds) if packet.size else 0.0
            sound.lose(lost_s)
            for frame in decoded:
                at_s = sound.position_s + lost_s if lost_s else None
                sound.add(as_float(frame), frame.sample_rate, low_frequency_channel(frame), at_s)
                lost_s = 0.0

    def _lost_s(self, clock: ByteClock, packet: Any, seconds: float) -> float:
        position = packet.pos or 0
        tags = 0 if clock.end is None or position <= clock.end else self._file.tag_bytes(clock.end)
        return clock.lost_s(position, packet.size, seconds, tags=tags)

    def _is_pause(self, packet: Any) -> bool:
        """Return whether a packet of AMR says that nobody speaks, which ffmpeg's own decoder takes for an error."""
        return 0 < packet.size <= AMR_PAUSE_BYTES and self._chosen.codec_context.name in {"amrnb", "amrwb"}

    def _add_pause(self, packet: Any, sound: Sound) -> None:
        rate_hz = self._chosen.codec_context.sample_rate
        silence = np.zeros((1, round(AMR_FRAME_S * rate_hz)), np.float32)
        if self.byte_clock is not None:
            self.byte_clock.skip(packet.pos or 0, packet.size)
            sound.add(silence, rate_hz, None, None)
        else:
            at_s = None if packet.pts is None else float(packet.pts * packet.time_base) - self._zero_s
            sound.add(silence, rate_hz, None, at_s)


@dataclass(slots=True)
class Picture:
    """The length of a moving picture, counted."""

    end_s: float = 0.0
    _latest_s: float = 0.0

    def show(self, time_s: float, length_s: float) -> float:
        """Count a picture; return where all of them end."""
        if time_s > self._latest_s or not self.end_s:
            self.end_s += min(STILL_PICTURE_S, max(0.0, time_s + length_s - max(self._latest_s, 0.0)))
            self._latest_s = time_s + length_s
        return self.end_s


def declared_s(container: Any, stream: Any) -> tuple[float | None, bool]:
    """Return the length that the file claims, and whether it claims it of the audio track."""
    start_s = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - zero_s(container)
    if stream.duration is not None:
        return start_s + float(stream.duration * stream.time_base), True
    tagged = tagged_s(stream)
    if tagged is not None:
        return tagged - max(0.0, zero_s(container)), True
    if container.duration is None:
        return None, False
    whole_s = container.duration / av.time_base
    if "matroska" in container.format.name:  # there it counts from time 0
        whole_s -= zero_s(container)
    return whole_s, all(each.type == "audio" for each in container.streams)


def tagged_s(stream: Any) -> float | None:
    """Return the time of the stream's end by Matroska's DURATION tag (HH:MM:SS.fraction)."""
    try:
        hours, minutes, rest = stream.metadata["DURATION"].split(":")
        end_s = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    except (KeyError, ValueError, OverflowError):
        return None
    return end_s if math.isfinite(end_s) else None


def extract(
    file: File, *, languages: frozenset[str], limit_s: float, opening_s: float, asked: Asked = NOTHING
) -> Report:
    """Choose a track and write its sound.

    Raises RefusedError, TooLongError, or what PyAV raises where the file cannot be opened.
    """
    signal.setitimer(signal.ITIMER_REAL, opening_s)  # what hangs in C is killed
    with file.open() as container:
        report = Report(container=container.format.name)
        try:
            tracks = asked_tracks(container, asked)
        except RefusedError as refused:
            if " " in str(refused):
                raise
            raise RefusedError(f"{refused} {container.format.name}") from None
        declared = {each.number: declared_s(container, container.streams[each.stream]) for each in tracks}
        report.declared_s = declared[tracks[0].number][0]
        report.tracks = len(container.streams.audio)
    signal.setitimer(signal.ITIMER_REAL, 0)
    expected = min(asked.window.overlap_s(0.0, report.declared_s or 0.0), limit_s) * RATE_HZ
    sys.stdout.buffer.write(max(0, round(expected)).to_bytes(8, "little"))
    sys.stdout.buffer.flush()
    order = tracks
    if len(tracks) > 1:
        preferred = by_tags(tracks, languages) or tracks
        best = preferred[0] if len(preferred) == 1 else listen(file, preferred, asked.window)
        first = [best, *(track for track in preferred if track is not best)]
        order = [*first, *(track for track in tracks if track not in first)]
    silent: list[tuple[Report, Output]] = []
    for track in order:
        found = Report(**asdict(report))
        found.declared_s, found.declared_by_track = declared[track.number]
        output = decode(file, track, found, limit_s=limit_s, waits=len(order) > 1, asked=asked)
        if not output.silent:
            return found
        silent.append((found, output))
    found, output = silent[0]
    if not output.kept and output.samples and asked.window is not WHOLE:
        output.kept = found.samples = _silent_samples(found)
        output.write_silence()
    elif len(order) > 1:
        output.write_silence()
    return found


def _silent_samples(found: Report) -> int:
    """Return the length of a part in which the picture goes on without sound. Raises RefusedError behind the end."""
    samples = round(found.picture_s * RATE_HZ)
    if not samples:
        raise RefusedError(f"after_end {found.read_s:.1f}")
    return samples


def main() -> None:
    """Write the sound, then the report."""
    warnings.simplefilter("ignore")  # of numpy, over broken numbers: they would stand before the report
    path, demuxers, languages, limit_s, opening_s, *more = sys.argv[1:]
    preferred = frozenset(languages.split(",")) - {""}
    asked = Asked.of(json.loads(more[0])) if more else NOTHING
    told: dict[str, Any]
    try:
        file = File(path, demuxers)
        told = asdict(
            extract(file, languages=preferred, limit_s=float(limit_s), opening_s=float(opening_s), asked=asked)
        )
    except TooLongError:
        told = {"error": "too_long"}
    except RefusedError as refused:
        told = {"error": str(refused)}
    except Exception as error:  # noqa: BLE001 - whatever a file can raise; a traceback would end in a log
        told = {"error": "not_media", "kind": type(error).__name__}
    sys.stdout.buffer.flush()
    sys.stderr.write(json.dumps(told))


if __name__ == "__main__":
    main()
