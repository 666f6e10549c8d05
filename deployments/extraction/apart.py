"""Room for the samples of a track whose channels are kept apart, one speaker in each: of a telephone, of microphones.

Samples come interleaved from a pipe, and leave channel after channel in one array. On the way, a party that is heard
faintly in another's channel is taken out of it (`crosstalk.py`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from deployments.extraction import crosstalk
from deployments.types import CHANNEL_GAP_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.types import Audio

READ_BYTES = 1 << 20
HEAD_BYTES = 8
"""The number of channels, before the samples."""
GAP = round(CHANNEL_GAP_S * SAMPLE_RATE_HZ)


class Apart:
    """Room for up to `most_samples` of each channel. Memory that is never written is not used."""

    def __init__(self, most_samples: int) -> None:
        self._most = most_samples
        self._head = bytearray()
        self._rest = b""
        self._rooms = np.zeros((0, 0), np.int16)
        self.samples = 0
        """That came, of each channel."""
        self.channels = 1
        """Of the array that `audio` returns."""
        self.alike = False
        """Whether there was nothing to keep apart."""

    @property
    def is_full(self) -> bool:
        """Return whether there is no room for another sample."""
        return len(self._head) == HEAD_BYTES and self.samples == self._most

    def read(self, descriptor: int) -> int:
        """Read from a pipe; return the number of bytes."""
        if len(self._head) < HEAD_BYTES:
            return self._read_head(descriptor)
        count = len(self._rooms)
        room = (self._most - self.samples) * 2 * count - len(self._rest)
        got = os.read(descriptor, min(READ_BYTES, room))
        data = self._rest + got
        whole = len(data) // (2 * count)
        self._rest = data[whole * 2 * count :]
        frames = np.frombuffer(data, np.int16, whole * count).reshape(whole, count)
        self._rooms[:, self.samples : self.samples + whole] = frames.T
        self.samples += whole
        return len(got)

    def _read_head(self, descriptor: int) -> int:
        got = os.read(descriptor, HEAD_BYTES - len(self._head))
        self._head += got
        if len(self._head) == HEAD_BYTES:
            self._rooms = np.zeros((int.from_bytes(self._head, "little"), self._most + GAP), np.int16)
        return len(got)

    def audio(self, check: Callable[[], None]) -> Audio:
        """Return the channels one after the other, `GAP` samples of silence behind each, or the only sound there is.

        `check` is called every half a minute of the video, and may raise.
        """
        sounds = self._rooms[:, : self.samples]
        self.alike = len(sounds) < 2 or crosstalk.are_alike(sounds, check)  # noqa: PLR2004 - one channel, or none
        if self.alike:
            return sounds[crosstalk.loudest(sounds)].copy() if len(sounds) else np.zeros(0, np.int16)
        crosstalk.remove(sounds, check)
        self.channels, length = len(sounds), self.samples + GAP
        array = self._rooms.reshape(-1)
        for number in range(1, len(sounds)):  # each moves towards the front: no second copy of hours of sound
            array[number * length : (number + 1) * length] = self._rooms[number, :length]
        return array[: len(sounds) * length]

    def clear(self) -> None:
        """Free the memory."""
        self._rooms = np.zeros((0, 0), np.int16)
