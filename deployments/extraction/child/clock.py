"""The video's clock: where packets and decoded frames lie, in seconds from the start of the file's first stream.

What timestamps claim is a hint. Sound lies where its own timestamps put it, and gaps between them are silence. But a
clock may also jump: pieces that were recorded one after the other and joined have two clocks, and a damaged timestamp
lies anywhere. So a step backwards, and one forwards that no stream fills, is no silence: what follows it goes on where
what came before it ended, as in players (ffmpeg: `dts_delta_threshold`). Knows no library of media.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKWARDS_S = 1.0
"""A larger step backwards is a jump of the clock; a smaller one is an overlap."""
FORWARDS_S = 10.0
"""A larger step forwards is a jump, in formats whose clock may begin anew (MPEG-TS and others)."""
UNLIKELY_S = 1800.0
"""A larger step forwards is a jump in all formats."""
TOLERANCE_S = 0.015
"""Sound is moved where it is further from its place: timestamps are rounded to a millisecond or more."""
MEMORY = 3
"""Streams are interleaved: a packet may still be of one of the clocks before."""


@dataclass(slots=True)
class PacketClock:
    """Corrects the times of packets of all streams. `may_restart`: as formats do that can be joined by `cat`."""

    may_restart: bool
    jumps: int = 0
    jumped_s: float = 0.0
    """What all jumps together amount to: positive where they led forwards."""
    _offsets: list[float] = field(default_factory=lambda: [0.0])
    _ends: dict[int, float] = field(default_factory=dict)
    """The end of the latest packet of each stream."""

    def correction(self, stream: int, time_s: float, duration_s: float) -> float:
        """Return what is added to the times of a packet, which begins at `time_s` by its own clock."""
        newest = max(self._ends.values(), default=None)
        if newest is None:
            offset = 0.0
        else:
            own_end = self._ends.get(stream, -math.inf)  # the first packet of a stream may lie behind the others'
            offset = min(reversed(self._offsets), key=lambda each: _distance(time_s + each, own_end, newest))
            if not self._fits(time_s + offset, own_end, newest):
                step = newest - time_s - offset
                self.jumps += 1
                self.jumped_s -= step
                offset += step
                self._offsets = [*self._offsets, offset][-MEMORY:]
        self._ends[stream] = max(self._ends.get(stream, -math.inf), time_s + offset + duration_s)
        return offset

    def _fits(self, time_s: float, own_end_s: float, newest_s: float) -> bool:
        limit_s = FORWARDS_S if self.may_restart else UNLIKELY_S
        return own_end_s - BACKWARDS_S <= time_s <= max(own_end_s, newest_s) + limit_s


def _distance(time_s: float, own_end_s: float, newest_s: float) -> float:
    """Return how far a packet is from where the next one of its stream may lie: between its own end and the newest."""
    return max(own_end_s - time_s, 0.0) + max(time_s - max(own_end_s, newest_s), 0.0)


@dataclass(slots=True)
class ByteClock:
    """Tells what is lost in streams whose packets have no times of their own (MP3, ADTS): by the bytes between."""

    longest_bytes: float
    """Of a frame: a parser that finds no next frame leaves more bytes in a packet."""
    _bytes: int = 0
    _seconds: float = 0.0
    _packets: int = 0
    _begin: int | None = None
    _end: int | None = None
    _lost_s: float = 0.0

    @property
    def end(self) -> int | None:
        """Return the byte at which the packets so far end."""
        return self._end

    def lost_s(self, position: int, size: int, seconds: float, *, tags: int = 0) -> float:
        """Return how much sound was lost before a packet at the byte `position` that has `seconds` of sound.

        `tags`: so many of the bytes before it are no sound.
        """
        before = 0 if self._end is None else max(0, position - self._end - tags)
        usual = self._bytes // self._packets if self._packets else size
        self._end = position + size
        if size > self.longest_bytes:
            before, size = before + size - usual, usual
        rate = max(self._bytes / self._seconds if self._bytes else 0.0, size / seconds)
        lost_s = before / rate
        self._begin = position if self._begin is None else self._begin
        self._bytes, self._seconds, self._packets = self._bytes + size, self._seconds + seconds, self._packets + 1
        lost_s = lost_s if lost_s > seconds else 0.0
        self._lost_s += lost_s
        return lost_s

    def skip(self, position: int, size: int) -> None:
        """Take note of a packet that holds no sound."""
        self._begin = position if self._begin is None else self._begin
        self._end = position + size

    def rest_s(self, file_bytes: int) -> float:
        """Return how much more was lost in a damaged file: demuxers skip bytes without a trace in positions."""
        if not self._lost_s or self._begin is None:
            return 0.0
        whole_s = (file_bytes - self._begin) * self._seconds / self._bytes
        return max(0.0, whole_s - self._seconds - self._lost_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What to do before a frame: put in `silence` samples, or leave out the frame's first `drop` samples."""

    silence: int = 0
    drop: int = 0


def steady_time_s(position_s: float, frames: Iterable[tuple[float | None, float]]) -> float | None:
    """Return when the first of `frames` begins, None where its own timestamp is to be ignored.

    `frames` are times and durations; `position_s` is where the sound before them ends. A clock that is off stays off:
    the frames that follow are late, or early, by as much. A timestamp that jitters says nothing of the sound, as those
    of live streams do, which bear the times at which packets arrived.
    """
    following = iter(frames)
    time_s, duration_s = next(following)
    if time_s is None or not TOLERANCE_S < abs(time_s - position_s) <= BACKWARDS_S:
        return time_s
    steps, end_s = [time_s - position_s], position_s + duration_s
    for each_s, duration_s in following:
        if each_s is not None:
            steps.append(each_s - end_s)
        end_s += duration_s
    least = min(steps, key=abs)
    same_sign = all((step > 0) == (least > 0) for step in steps)
    return position_s + least if same_sign and abs(least) > TOLERANCE_S else None


class Placer:
    """Counts the samples of a track, and says where the next frame goes. All counts are at the frames' own rate."""

    def __init__(self) -> None:
        self._base_s = 0.0
        self._rate_hz = 1
        self._samples = 0

    @property
    def position_s(self) -> float:
        """Return where the samples so far end."""
        return self._base_s + self._samples / self._rate_hz

    def place(self, time_s: float | None, samples: int, rate_hz: int) -> Place:
        """Return what to do with a frame that begins at `time_s` (None: where the one before ended), and count it."""
        if rate_hz != self._rate_hz:
            self._base_s, self._rate_hz, self._samples = self.position_s, rate_hz, 0
        step_s = 0.0 if time_s is None else time_s - self.position_s
        count = round(abs(step_s) * rate_hz) if abs(step_s) > TOLERANCE_S else 0
        place = Place(silence=count) if step_s > 0 else Place(drop=min(count, samples))
        self._samples += samples + place.silence - place.drop
        return place
