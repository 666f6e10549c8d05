"""From the frames of one track to 16 kHz mono: placed by their times, mixed, resampled, counted."""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import soxr
from numpy.typing import NDArray

from deployments.extraction.child.clock import Placer, steady_time_s
from deployments.extraction.child.mixing import Apart, Mixer, Samples, clipped_share

RATE_HZ = 16_000
BLOCK_S = 1.0
"""Sound is mixed by this length."""
AHEAD_S = 0.25
"""So much sound waits for what follows it: only then it shows whether a timestamp jitters or the clock is off."""
SILENT_PEAK = 3
"""Of int16: what is not louder (-80 dBFS) is silence."""

Sounds: TypeAlias = NDArray[np.float32]
"""Shape (samples,), or (samples, channels) where channels are kept apart."""


class TooLongError(Exception):
    """Sound or picture is longer than it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of the video that is asked for, in seconds on its clock."""

    start_s: float = 0.0
    end_s: float = math.inf

    def overlap_s(self, start_s: float, end_s: float) -> float:
        """Return how much of a time lies in it."""
        return max(0.0, min(end_s, self.end_s) - max(start_s, self.start_s))


WHOLE = Window()


@dataclass(slots=True)
class Report:
    """What was found in the part of a file that is asked for.

    Seconds are those of the video, but for `declared_s`, which is the file's own claim.
    """

    container: str
    declared_s: float | None = None
    """Of the audio track, or where it has none, of the file."""
    declared_by_track: bool = False
    picture_s: float = 0.0
    samples: int = 0
    track: int = 1
    tracks: int = 1
    silent: bool = False
    damaged_s: float = 0.0
    """Sound that is there and could not be decoded."""
    gaps: int = 0
    gaps_s: float = 0.0
    """Places without sound, by the timestamps, which are silence now."""
    jumps: int = 0
    jumped_s: float = 0.0
    clipped_s: float = 0.0
    opposed_s: float = 0.0
    """Channels were out of phase."""
    channels: int = 1
    """That were written, one sample of each in turn."""
    read_s: float = 0.0
    """Length of the sound or picture that was read, from the video's start."""


class Output:
    """Writes the samples inside `window` to standard output. Where it `waits`, silence at the beginning is held back.

    `channels`: where they are kept apart, their number, which is written before the first sample (8 bytes,
    little-endian).
    """

    def __init__(self, *, waits: bool, window: Window = WHOLE, channels: int | None = None) -> None:
        self._waits = waits
        self._first = round(window.start_s * RATE_HZ)
        self._end = sys.maxsize if math.isinf(window.end_s) else round(window.end_s * RATE_HZ)
        self._head = b"" if channels is None else channels.to_bytes(8, "little")
        self._sample_bytes = 2 * (channels or 1)
        self.silent = True
        self.samples = 0
        """Of the video, inside the window or not."""
        self.kept = 0
        """Inside the window."""

    def write(self, samples: NDArray[np.int16]) -> None:
        """Write samples, or hold them back. Shape (samples,), or (samples, channels)."""
        first, end = max(0, self._first - self.samples), max(0, self._end - self.samples)
        self.samples += len(samples)
        samples = samples[first:end]
        if self.silent and (np.abs(samples.astype(np.int32)) > SILENT_PEAK).any():
            self.silent = False
            if self._waits:
                self.write_silence()
        if not (self.silent and self._waits):
            self._write(samples.tobytes())
        self.kept += len(samples)

    def write_silence(self) -> None:
        """Write the silence that was held back."""
        for _ in range(self.kept // RATE_HZ):
            self._write(bytes(self._sample_bytes * RATE_HZ))
        self._write(bytes(self._sample_bytes * (self.kept % RATE_HZ)))

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(self._head + data)
        self._head = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Decoded sound; `lost_s` of sound before it could not be decoded."""

    samples: Samples
    rate_hz: int
    lfe: int | None
    time_s: float | None
    lost_s: float

    @property
    def duration_s(self) -> float:
        """Return its length."""
        return float(self.samples.shape[1] / self.rate_hz)


class Sound:
    """Takes the frames of a track, of whatever rates and channels, one after the other."""

    def __init__(
        self, output: Output, report: Report, *, limit_s: float, window: Window = WHOLE, channels: int | None = None
    ) -> None:
        """`channels`: their number, where they are kept apart. `limit_s` bounds what lies in `window`."""
        self._window = window
        self._channels = channels
        self._output = output
        self._report = report
        self._limit_s = limit_s
        self._placer = Placer()
        self._mixer: Mixer | Apart = Mixer(0)
        self._resampler: Any = None
        self._format = (0, 0, None)
        """Channels, rate, and the number of the low-frequency channel."""
        self._block: list[Samples] = []
        self._buffered = 0
        self._rate_began_at = 0
        """The sample of the output at which the present rate began."""
        self._fed = 0
        """Samples of the present rate that were mixed."""
        self._lost_s = 0.0
        """Not decoded since the latest frame."""
        self._waiting: deque[Frame] = deque()
        self._waiting_s = 0.0

    @property
    def position_s(self) -> float:
        """Return where the sound so far ends, by the timestamps of what waits."""
        end_s = self._placer.position_s
        for frame in self._waiting:
            end_s = (end_s if frame.time_s is None else max(end_s, frame.time_s)) + frame.duration_s
        return end_s

    def lose(self, seconds: float) -> None:
        """Note that so much could not be decoded."""
        self._lost_s += seconds

    def add(self, samples: Samples, rate_hz: int, lfe: int | None, time_s: float | None) -> None:
        """Add a frame that begins at `time_s`, None: where the one before ended. Raises TooLongError."""
        frame = Frame(samples=samples, rate_hz=rate_hz, lfe=lfe, time_s=time_s, lost_s=self._lost_s)
        self._lost_s = 0.0
        self._waiting.append(frame)
        self._waiting_s += frame.duration_s
        while self._waiting_s > AHEAD_S:
            self._place_next()

    def _place_next(self) -> None:
        frame = self._waiting[0]
        time_s = steady_time_s(self._placer.position_s, ((each.time_s, each.duration_s) for each in self._waiting))
        self._waiting.popleft()
        self._waiting_s -= frame.duration_s
        samples, rate_hz, lfe = frame.samples, frame.rate_hz, frame.lfe
        begins = self._placer.position_s == 0
        began_s = self._placer.position_s
        place = self._placer.place(time_s, samples.shape[1], rate_hz)
        if self._window.overlap_s(0.0, self._placer.position_s) > self._limit_s:
            raise TooLongError
        gap_s = self._window.overlap_s(began_s, began_s + place.silence / rate_hz)
        if frame.lost_s:
            self._report.damaged_s += max(self._window.overlap_s(began_s, began_s + frame.lost_s), gap_s)
        elif gap_s and not begins:
            self._report.gaps += 1
            self._report.gaps_s += gap_s
        self._change((len(samples), rate_hz, lfe))
        for start in range(0, place.silence, rate_hz):
            self._push(np.zeros((len(samples), min(rate_hz, place.silence - start)), np.float32))
        self._push(samples[:, place.drop :])

    def close(self) -> None:
        """Write what is left. Raises TooLongError."""
        while self._waiting:
            self._place_next()
        ended_s = self._placer.position_s
        self._report.damaged_s += self._window.overlap_s(ended_s, ended_s + self._lost_s)
        self._mix()
        self._end_rate()

    def _change(self, new: tuple[int, int, Any]) -> None:
        """Go on with another number of channels, or another rate."""
        if new == self._format:
            return
        self._mix()
        if new[1] != self._format[1]:
            self._end_rate()
            self._rate_began_at, self._fed = self._output.samples, 0
            channels = self._channels or 1
            self._resampler = (
                None if new[1] == RATE_HZ else soxr.ResampleStream(new[1], RATE_HZ, channels, dtype="float32")
            )
        self._mixer = Mixer(new[0], lfe=new[2]) if self._channels is None else Apart(self._channels)
        self._format = new

    def _push(self, samples: Samples) -> None:
        self._block.append(samples)
        self._buffered += samples.shape[1]
        if self._buffered >= BLOCK_S * self._format[1]:
            self._mix()

    def _mix(self) -> None:
        if not self._buffered:
            return
        block: Samples = np.concatenate(self._block, axis=1)
        np.nan_to_num(block, copy=False, posinf=1.0, neginf=-1.0)
        self._block, self._buffered = [], 0
        rate_hz = self._format[1]
        mixed = self._mixer.mix(block, rate_hz)
        began_s = self._rate_began_at / RATE_HZ + self._fed / rate_hz
        seconds = self._window.overlap_s(began_s, began_s + len(mixed) / rate_hz)
        self._report.clipped_s += clipped_share(block) * seconds
        self._report.opposed_s += seconds if self._mixer.opposed else 0.0
        self._fed += len(mixed)
        self._write(mixed if self._resampler is None else self._resampler.resample_chunk(mixed))

    def _end_rate(self) -> None:
        """Write the resampler's rest, so that exactly as much has come out as went in."""
        if self._resampler is None:
            return
        none = np.zeros(0 if self._channels is None else (0, self._channels), np.float32)
        rest = self._resampler.resample_chunk(none, last=True)
        ends_at = self._rate_began_at + round(self._fed * RATE_HZ / self._format[1])
        missing = max(0, ends_at - self._output.samples)
        padding = [(0, max(0, missing - len(rest))), (0, 0)][: rest.ndim]
        self._write(np.pad(rest, padding)[:missing])

    def _write(self, sounds: Sounds) -> None:
        self._output.write(np.clip(np.rint(sounds * 32768), -32768, 32767).astype(np.int16))


def as_float(frame: Any) -> Samples:
    """Return a frame's samples as channels by samples, full scale 1."""
    samples: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    full_scale = 1.0 if samples.dtype.kind == "f" else float(2 ** (8 * samples.itemsize - 1))
    zero = full_scale if samples.dtype.kind == "u" else 0.0
    if samples.dtype == np.float32:
        return samples
    floats: Samples = (samples.astype(np.float32) - np.float32(zero)) / np.float32(full_scale)
    return floats


def low_frequency_channel(frame: Any) -> int | None:
    """Return the number of the low-frequency channel, if the layout names one."""
    names = [channel.name for channel in frame.layout.channels]
    return names.index("LFE") if "LFE" in names and len(names) > 1 else None
