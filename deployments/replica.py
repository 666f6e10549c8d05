"""What every replica does: logs, manners towards its neighbours on a small machine, one computation at a time."""

from __future__ import annotations

import asyncio
import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from deployments import logs
from deployments.errors import StuckError
from deployments.watchdog import LONGEST_S, watching

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

NICENESS = 19
"""Where the system knows no idle priority: behind the drivers (15), which send callbacks."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 28
"""Free memory that a process holds on to at the most, at the end of its heap."""
HEALTH_CHECK_S = 5.0
"""Serve replaces a replica whose health check fails three times in a row: soon enough for the drivers, who ask again
for half a minute (`serve_app/pipeline/stage_calls.py`)."""


def prepare(*, threads: int | None = None) -> None:
    """Configure logs, yield to others and, where `threads` is given, see to torch's threads and memory."""
    logs.configure()
    _yield()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        keep_memory()


def keep_memory() -> None:
    """Let glibc keep what this process frees, up to `KEPT_BYTES`, for the next call: no effect with another libc.

    A network's layers ask for megabytes and free them; by default each comes from the system, empty, page by page,
    which is a fifth of the aligner's time (docs/decisions.md). The thresholds are mallopt(3)'s.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def _yield() -> None:
    """Let this thread, and those that it starts, compute only when nobody wants to answer a request or send a callback.

    Requests beside ten jobs are answered sooner than with mere niceness (docs/decisions.md has the figures).
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)


class Compute:
    """Runs the calls of a replica one after the other in one thread, so that the replica itself always answers.

    Calls wait here, in order, and not at the callers, whose routers would poll for a free replica (ten drivers doing so
    took 70 % of a core). One that waits can be cancelled; one that computes goes on for its few seconds. One that
    computes for longer than `longest_s`, waiting not counted, is stuck, and this process ends (`watchdog`).
    """

    def __init__(self, *, longest_s: float = LONGEST_S) -> None:
        self._thread = ThreadPoolExecutor(1, "compute")
        self._longest_s = longest_s

    async def __call__(self, work: Callable[..., Answer], *args: object, **options: object) -> Answer:
        """Await `work`'s answer, computed when it is its turn.

        Raises:
            StuckError: It takes too long. This replica is about to end.
        """
        loop = asyncio.get_running_loop()
        stuck = asyncio.Event()

        def compute() -> Answer:
            with watching(self._longest_s, lambda: loop.call_soon_threadsafe(stuck.set)):
                return work(*args, **options)

        computed = loop.run_in_executor(self._thread, compute)
        noticed = asyncio.create_task(stuck.wait())
        both: set[asyncio.Future[Any]] = {computed, noticed}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not computed.done():
                raise StuckError
            return await computed
        finally:
            for each in both:
                each.cancel()  # what still waits for its turn is not computed
