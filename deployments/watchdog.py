"""Ends a replica's process when a computation takes too long: nothing else stops native code.

    longest_s          a timer thread calls `on_stuck` and logs the stack of the thread that computes
    + LEAVE_S          the process ends; callers that still waited see it die and call another replica
    + HARD_S           faulthandler's C thread ends it, where native code held the GIL: no caller gets an answer

Knows nothing of Ray or of what is computed. One computation of a process can be watched at a time.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployments import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_S = 600.0
"""Default limit of one call of an engine. The longest known call, eight chunks of 30 s in whisperx on a slow CPU beside
nine other jobs, takes minutes. Twice the limit still ends within a job's half hour."""
LEAVE_S = 2.0
"""Time for the StuckErrors to leave the process."""
HARD_S = 4.0
STDERR = 2

log = logs.get_logger("watchdog")


@contextmanager
def watching(longest_s: float, on_stuck: Callable[[], object]) -> Iterator[None]:
    """If the block takes longer than `longest_s`, call `on_stuck` from another thread, then end this process."""
    timer = threading.Timer(longest_s, _end, [longest_s, on_stuck, threading.get_ident()])
    timer.daemon = True
    faulthandler.dump_traceback_later(longest_s + HARD_S, exit=True, file=STDERR)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


def _end(longest_s: float, on_stuck: Callable[[], object], computing: int) -> None:
    on_stuck()
    frame = sys._current_frames().get(computing)  # noqa: SLF001 - the documented way to see another thread's stack
    extra = {"longest_s": longest_s, "stack": logs.stack(frame)}
    log.critical("a computation is stuck: this replica ends itself", extra=extra)
    time.sleep(LEAVE_S)
    os._exit(1)
