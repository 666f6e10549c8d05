"""Child processes with bounded time, memory and output, which are killed as a group.

Knows nothing about media. The limits are set from outside (`prlimit`), since Python code between fork and exec is not
safe in a process with threads: a shell waits in the child until they are set, then executes the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import IO, TypeAlias, TypeVar, cast

WAITING = ("/bin/sh", "-c", 'read -r _; exec "$@"', "sh")
"""Waits for a line on stdin, then executes the command that follows."""
STOP_CHECK_S = 0.1
"""Interval of checks for a stop and for the deadline."""

STDERR_TAIL_BYTES = 2_000

Read: TypeAlias = Callable[[int], int]
"""Reads from the pipe with this descriptor and returns the number of bytes; 0: the end."""

T = TypeVar("T")


class StoppedError(Exception):
    """The stop event was set."""


class ChildTimeoutError(Exception):
    """The child ran longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """Bounds of a child process."""

    wall_s: float
    cpu_s: int
    address_space_bytes: int
    file_size_bytes: int = 0
    """Largest file that the child may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended: `returncode` as in `subprocess`, and the end of its stderr."""

    returncode: int
    stderr: str


def run(command: Sequence[str], *, limits: ChildLimits, read: Read, stop: Event | None = None) -> Ended:
    """Run `command` to its end; `read` consumes its output. Blocks. An exception of `read` kills the child.

    Raises:
        ChildTimeoutError: The child took longer than `limits.wall_s` and was killed.
        StoppedError: `stop` was set, and the child was killed.
    """
    deadline = time.monotonic() + limits.wall_s
    process = subprocess.Popen(  # noqa: S603 - a list of our own making, no shell
        [*WAITING, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(),
    )
    with process:
        try:
            _limit(process.pid, limits)
            with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", process.stdin) as stdin:
                stdin.write(b"\n")  # the command begins
            stderr = _pump(process, read, deadline=deadline, stop=stop)
            while process.poll() is None:
                _check(deadline, stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_CHECK_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return Ended(returncode=process.returncode, stderr=stderr)


async def in_thread(function: Callable[[Event], T]) -> T:
    """Run blocking `function` in a thread, with an event that is set when the caller is cancelled.

    A cancelled caller returns only after the function has, so that nothing runs on.
    """
    stop = Event()
    work = asyncio.ensure_future(asyncio.to_thread(function, stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


def _pump(process: subprocess.Popen[bytes], read: Read, *, deadline: float, stop: Event | None) -> str:
    """Read both pipes to their ends and return the tail of stderr."""
    tail: deque[bytes] = deque(maxlen=STDERR_TAIL_BYTES // 100)
    stdout, stderr = (cast("IO[bytes]", pipe).fileno() for pipe in (process.stdout, process.stderr))
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while selector.get_map():
            _check(deadline, stop)
            for key, _ in selector.select(STOP_CHECK_S):
                if key.fd == stdout:
                    ended = read(stdout) == 0
                else:
                    tail.append(os.read(stderr, 4096))
                    ended = not tail[-1]
                if ended:
                    selector.unregister(key.fd)
    return b"".join(tail)[-STDERR_TAIL_BYTES:].decode(errors="replace")


def _check(deadline: float, stop: Event | None) -> None:
    if stop is not None and stop.is_set():
        raise StoppedError
    if time.monotonic() > deadline:
        raise ChildTimeoutError


def _limit(pid: int, limits: ChildLimits) -> None:
    if sys.platform != "linux":  # elsewhere only time and output are bounded
        return
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_AS, limits.address_space_bytes),
        (resource.RLIMIT_FSIZE, limits.file_size_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (value, value + (kind == resource.RLIMIT_CPU)))  # SIGXCPU comes before SIGKILL


def _environment() -> dict[str, str]:
    """Return the child's environment: what it needs to start and a locale, no proxies, library settings or secrets."""
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"HOME": "/", "LANG": "C.UTF-8", **passed}
