"""Kills this very process at a named edge of a job, as `kill -9` would: nothing is closed, flushed or told."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass

EDGES = (
    "accepted",
    "downloading",
    "downloaded",
    "extracted",
    "detected",
    "diarized",
    "transcribed",
    "aligned",
    "emotion",
    "prosody",
    "committed",
    "unacknowledged",
)
"""What a job passes; at the last one its backend kills: it has the callback and has not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse:
    """Burns for `delay_s` once `edge` is reached."""

    edge: str
    delay_s: float

    def reach(self, edge: str) -> None:
        """Tell that the job is there."""
        if edge == self.edge:
            if not self.delay_s:
                _end()
            threading.Timer(self.delay_s, _end).start()

    def wait(self) -> None:
        """Whoever is done before his end waits for it."""
        time.sleep(60)
        raise AssertionError(f"never came to {self.edge}")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
