"""A backend that misbehaves by a seed: acknowledges, is slow, resets, fails, hangs or drips, by its mood."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.support.backend import DRIP, HANG, RESET, SLOW, Backend, Received

if TYPE_CHECKING:
    from collections.abc import Sequence

HONEST = {200: 1.0}
MOODS = {
    "usual": {200: 0.9, SLOW: 0.03, 500: 0.03, RESET: 0.03, HANG: 0.005, DRIP: 0.005},
    "brisk": {200: 0.85, SLOW: 0.05, 500: 0.05, RESET: 0.05},
    "resets": {200: 0.3, RESET: 0.7},
    "errors": {200: 0.3, 500: 0.7},
    "slow": {SLOW: 1.0},
}
"""What it does to a POST, by how often. `usual` and `brisk` are for all the time, the others for seconds."""
NAMES = {200: "ok", SLOW: "slow", 500: "500", RESET: "reset", HANG: "hang", DRIP: "drip"}
"""In reports."""


class Unreliable(Backend):
    """`mood` may be changed at any time."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._choose)
        self.mood = HONEST
        self.did: dict[str, int] = {}
        self._chance = random.Random(seed)

    def _choose(self, _new: Received, _before: Sequence[Received]) -> int:
        (answer,) = self._chance.choices(list(self.mood), list(self.mood.values()))
        self.did[NAMES[answer]] = self.did.get(NAMES[answer], 0) + 1
        return answer
