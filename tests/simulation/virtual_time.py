"""One clock for everything: `time`, `random`, `uuid4` and tokens of the process come from the seed.

Import this before anything of the product: default arguments such as `clock=time.time` are bound at import.
"""

from __future__ import annotations

import datetime as dt
import random
import secrets
import time
import uuid

EPOCH_S = 1_800_000_000.0
"""The wall clock of every run begins here."""


class Clock:
    """The steady clock in seconds; the wall clock has an offset, which a fault may change."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_offset_s = EPOCH_S

    def steady(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset_s

    def reset(self) -> None:
        self.now, self.wall_offset_s = 0.0, EPOCH_S


CLOCK = Clock()
_ids = random.Random(0)
real_steady = time.perf_counter


class VirtualDatetime(dt.datetime):
    """`datetime` whose `now` is the virtual wall clock."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return dt.datetime.fromtimestamp(CLOCK.wall(), tz)


def install() -> None:
    """Replace the clocks and the sources of chance of this process."""
    time.time, time.monotonic, time.perf_counter = CLOCK.wall, CLOCK.steady, CLOCK.steady
    uuid.uuid4 = lambda: uuid.UUID(int=_ids.getrandbits(128), version=4)
    secrets.token_hex = lambda size=32: f"{_ids.getrandbits(8 * size):0{2 * size}x}"


def begin(seed: int) -> None:
    """Begin a run: the clock at 0, and all chance from `seed`."""
    CLOCK.reset()
    _ids.seed(f"ids {seed}")
    random.seed(f"product {seed}")
