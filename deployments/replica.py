"""What every replica does to its process: logs, priority, memory, and one thread that computes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from deployments import logs
from deployments.errors import DeviceError, StuckError
from deployments.watchdog import LONGEST_S, watching

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")
Engine = TypeVar("Engine")

log = logs.get_logger("replica")

NICENESS = 19
"""Used where the system has no idle priority: lower than that of the job actors, which send callbacks."""
PRIORITY_VARIABLE = "ML_SERVER_COMPUTE_PRIORITY"
"""Of a node: `idle`, or `fair` where one container, or one session, holds other busy programs besides the server."""
IDLE, FAIR = "idle", "fair"
SLICE_NS = 100_000_000
"""The longest time slice that Linux takes as a hint."""
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number by machine."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
RETAINED_BYTES = 1 << 28
"""Most freed memory that a process retains at the end of its heap."""
HEALTH_CHECK_S = 5.0
"""Serve replaces a replica whose health check fails three times in a row. That is soon enough for the job actors, which
repeat a failed call for half a minute."""


def prepare(*, threads: int | None = None) -> None:
    """Configure logs, lower the priority and, where `threads` is given, prepare torch."""
    logs.configure()
    _lower_priority()
    if threads is not None:
        prepare_torch(threads)


def prepare_torch(threads: int) -> None:
    """Import torch, set its threads, and retain freed memory."""
    import torch

    torch.set_num_threads(threads)
    retain_freed_memory()


def retain_freed_memory() -> None:
    """Have glibc retain up to `RETAINED_BYTES` of freed memory for the next call. No effect with another libc.

    A network's layers allocate megabytes and free them. By default glibc returns them to the system and gets them back
    page by page, which takes a fifth of the aligner's time (docs/decisions.md). For the thresholds see mallopt(3).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, RETAINED_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, RETAINED_BYTES)


def compute_priority() -> str:
    """Return the priority that this node wants. Raises ValueError for one that does not exist."""
    wanted = os.environ.get(PRIORITY_VARIABLE) or IDLE
    if wanted not in {IDLE, FAIR}:
        raise ValueError(f"{PRIORITY_VARIABLE} must be {IDLE} or {FAIR}, not {wanted!r}")
    return wanted


def _lower_priority() -> None:
    """Let this thread, and those that it starts, run only while the processor is idle otherwise, or as the node wants.

    Beside ten jobs, requests are answered sooner than with niceness alone (docs/decisions.md has the figures). Raises
    ValueError for a priority that does not exist.
    """
    if compute_priority() == FAIR:
        _ask_for_long_slices()
    elif hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(NICENESS)


def _ask_for_long_slices() -> None:
    """Run at ordinary priority in long slices: Linux 6.12 lets threads with short ones, which answer, interrupt those.

    See sched_setattr(2), and "EEVDF: Allow shorter slices to wakeup-preempt" (Linux 6.12). No effect elsewhere.
    """
    number = SCHED_SETATTR.get(platform.machine())
    if number and sys.platform == "linux":
        size, niceness = struct.calcsize("=IIQiIQQQII"), os.getpriority(os.PRIO_PROCESS, 0)
        attributes = struct.pack("=IIQiIQQQII", size, 0, 0, niceness, 0, SLICE_NS, 0, 0, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)


class LateEngine(Generic[Engine]):
    """An engine that is loaded at once, or by the first call: then a server at rest goes without its libraries.

    A load that fails is not tried again in this process, where a library may be half imported.
    """

    def __init__(self, load: Callable[[], Engine], *, at_first_call: bool) -> None:
        self._load = load
        self._failed: Exception | None = None
        self.loaded = None if at_first_call else load()

    def get(self) -> Engine:
        """Return the engine, loaded. Only the thread that computes may call this. Raises DeviceError where that fails.

        So the caller repeats its call elsewhere, and `check` has Serve replace this replica.
        """
        if self.loaded is None:
            self.check()
            try:
                self.loaded = self._load()
            except Exception as error:
                log.exception("the engine cannot be loaded")
                self._failed = error
                raise DeviceError from error
        return self.loaded

    def check(self) -> None:
        """Raise DeviceError where the load has failed."""
        if self._failed is not None:
            raise DeviceError from self._failed


class ComputeThread:
    """Runs the calls of a replica one after the other in one thread, so that the replica itself stays responsive.

    Calls wait here, in order, and not at the callers, whose routers would poll for a free replica (ten job actors doing
    so took 70 % of a core). A waiting call can be cancelled, a running one cannot. A call that runs for longer than
    `longest_s`, its wait not included, is stuck, and `watchdog` ends this process.
    """

    def __init__(self, *, longest_s: float = LONGEST_S) -> None:
        self._thread = ThreadPoolExecutor(1, "compute")
        self._longest_s = longest_s

    async def __call__(self, work: Callable[..., Answer], *args: object, **options: object) -> Answer:
        """Return what `work` returns, called when its turn comes. Raises what `work` raises.

        Raises StuckError where `work` takes too long; this process is about to end.
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
                each.cancel()  # a call that still waits is not computed
