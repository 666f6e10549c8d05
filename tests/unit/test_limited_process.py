"""M4: child processes under guard."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.extraction import limited_process

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print(child.pid, flush=True)
time.sleep(100)
"""


def limits(**changed: float) -> limited_process.ChildLimits:
    bounds = {"wall_s": 20.0, "cpu_s": 20, "address_space_bytes": 1 << 30, **changed}
    return limited_process.ChildLimits(**bounds)


def run(
    code: str, *, read: Callable[[int], int] | None = None, stop: threading.Event | None = None, **changed: float
) -> tuple[limited_process.Ended, bytes]:
    """Run Python code under guard; how it ended, and its output."""
    output = bytearray()

    def collect(descriptor: int) -> int:
        got = os.read(descriptor, 65536)
        output.extend(got)
        return len(got)

    ended = limited_process.run([sys.executable, "-c", code], limits=limits(**changed), read=read or collect, stop=stop)
    return ended, bytes(output)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has, too)."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def soon(condition: Callable[[], bool]) -> bool:
    """Whether `condition` comes true within a second."""
    until = time.monotonic() + 1
    while not (met := condition()) and time.monotonic() < until:
        os.sched_yield()
    return met


def test_output_and_end_are_told() -> None:
    """Both pipes are read to their end, whatever the order; only stderr's tail is kept."""
    code = "import sys; sys.stderr.write('e' * 300_000 + 'last words'); sys.stdout.write('x' * 300_000); sys.exit(3)"
    ended, output = run(code)
    assert output == b"x" * 300_000
    assert ended.returncode == 3
    assert ended.stderr.endswith("last words")
    assert len(ended.stderr) == limited_process.STDERR_TAIL_BYTES


def test_m4_the_clock_kills_the_whole_group() -> None:
    """A child that takes too long dies with its own children."""
    pids: list[int] = []

    def read(descriptor: int) -> int:
        got = os.read(descriptor, 100)
        pids.append(int(got))
        return len(got)

    began = time.monotonic()
    with pytest.raises(limited_process.ChildTimeoutError):
        run(FAMILY, read=read, wall_s=1.5)
    assert time.monotonic() - began < 3
    assert soon(lambda: gone(pids[0]))


def test_m4_a_stop_kills_the_whole_group() -> None:
    """A stop from another thread ends the child and its children within a moment."""
    stop = threading.Event()
    pids: list[int] = []

    def read(descriptor: int) -> int:
        got = os.read(descriptor, 100)
        pids.append(int(got))
        stop.set()
        return len(got)

    with pytest.raises(limited_process.StoppedError):
        run(FAMILY, read=read, stop=stop)
    assert soon(lambda: gone(pids[0]))


def test_m4_a_child_that_closes_its_output_is_still_watched() -> None:
    """The clock runs on after the last output."""
    with pytest.raises(limited_process.ChildTimeoutError):
        run("import os, time; os.close(1); os.close(2); time.sleep(100)", wall_s=0.5)


def test_m4_memory_is_bounded() -> None:
    """More address space than allowed is refused to the child."""
    ended, _ = run("x = bytearray(2 << 30)")
    assert ended.returncode == 1
    assert "MemoryError" in ended.stderr


def test_m4_nothing_runs_before_its_limits_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that is slow to set them, on a busy machine, gives the child no time without."""
    limit = limited_process._limit

    def late(*args: Any) -> None:
        time.sleep(0.5)
        limit(*args)

    monkeypatch.setattr(limited_process, "_limit", late)
    ended, _ = run("x = bytearray(2 << 30)")
    assert "MemoryError" in ended.stderr


def test_m4_files_are_bounded(tmp_path: Path) -> None:
    """The child can write no file."""
    ended, _ = run(f"open({str(tmp_path / 'f')!r}, 'w').write('x' * 100_000)")
    assert ended.returncode != 0
    assert (tmp_path / "f").stat().st_size == 0


def test_m4_cpu_is_bounded() -> None:
    """A child that only burns CPU is ended by the kernel."""
    ended, _ = run("while True: pass", cpu_s=1)
    assert ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_m4_the_environment_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child inherits none of our secrets."""
    monkeypatch.setenv("ML_SERVER_CALLBACK_SECRET", "s3cret")
    _, output = run("import os; print(dict(os.environ))")
    assert b"s3cret" not in output


async def test_a_cancelled_caller_waits_until_the_work_has_stopped() -> None:
    """`in_thread` sets the event when it is cancelled, and leaves no work behind."""
    ended: list[bool] = []
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(stop: threading.Event) -> None:
        loop.call_soon_threadsafe(started.set)
        ended.append(stop.wait(10))

    task = asyncio.create_task(limited_process.in_thread(work))
    await started.wait()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    assert ended == [True]


def test_in_thread_hands_on_results_and_errors() -> None:
    """What the function returns or raises reaches the caller."""

    def fail(_: threading.Event) -> None:
        raise ValueError("this one")

    assert asyncio.run(limited_process.in_thread(lambda _: 42)) == 42
    with pytest.raises(ValueError, match="this one"):
        asyncio.run(limited_process.in_thread(fail))
