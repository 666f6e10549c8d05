"""Ends a replica's process when one computation takes longer than it may: nothing else stops native code.

    longest_s          a thread of ours sees it, tells the caller, logs where every thread stands
    + LEAVE_S          the process ends; who waited behind the computation sees it die, and asks another replica
    + HARD_S           the same by a thread of C, where native code kept Python from running at all: no caller is told

Knows nothing of Ray or of what is computed. It is the process that is watched: one computation at a time.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployments import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_S = 600.0
"""Of one call of an engine, where the config says nothing. The longest known is a batch of eight chunks of 30 s in
whisperx on a slow CPU, which nine other jobs share: minutes. Twice this still ends before a job's half hour does."""
LEAVE_S = 2.0
"""For the answers that tell the callers to get out of the process."""
HARD_S = 4.0
STDERR = 2

log = logs.get_logger("watchdog")


@contextmanager
def watching(longest_s: float, tell: Callable[[], object]) -> Iterator[None]:
    """Where the block takes longer than `longest_s`, call `tell` from another thread, then end this process."""
    timer = threading.Timer(longest_s, _end, [longest_s, tell, threading.get_ident()])
    timer.daemon = True
    faulthandler.dump_traceback_later(longest_s + HARD_S, exit=True, file=STDERR)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


def _end(longest_s: float, tell: Callable[[], object], computing: int) -> None:
    tell()
    frame = sys._current_frames().get(computing)  # noqa: SLF001 - the documented way to see another thread's stack
    stack = "".join(traceback.format_stack(frame))
    log.critical("a computation is stuck: this replica ends itself", extra={"longest_s": longest_s, "stack": stack})
    time.sleep(LEAVE_S)
    os._exit(1)
