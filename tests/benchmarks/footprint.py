"""Memory and processor time of a server with all its processes, as Linux counts them in /proc.

Memory is PSS: a page that n processes share counts 1/n in each, so the sum over the processes is what the server
really takes. Audio in Ray's object store is in it as long as a process has it mapped.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.cli.child_process import session_members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.process import RunningServer

SAMPLE_EVERY_S = 1.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Ray titles its workers "ray::ServeReplica:<app>:<deployment>.<method>" and "ray::<actor class>.<method>".
TITLE = re.compile(r"ray::(?:ServeReplica:[^:]*:)?([A-Za-z]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One look at all processes."""

    processes: int
    rss_mb: float
    pss_mb: float
    shared_mb: float
    """Of `pss_mb`: shared memory, Ray's object store."""
    by_kind_mb: dict[str, float]
    """PSS by what the processes are."""


def session_of(server: RunningServer) -> int:
    """The session that holds the server's processes and no others."""
    process = server.process._process
    assert process is not None
    return process.pid


def footprint(session_id: int) -> Footprint:
    looks = []
    by_kind: defaultdict[str, float] = defaultdict(float)
    for pid in session_members(session_id):
        with suppress(OSError):  # it ended meanwhile
            memory = _memory_mb(pid)
            by_kind[_kind(pid)] += memory["Pss"]
            looks.append(memory)
    return Footprint(
        processes=len(looks),
        rss_mb=sum(memory["Rss"] for memory in looks),
        pss_mb=sum(memory["Pss"] for memory in looks),
        shared_mb=sum(memory["Pss_Shmem"] for memory in looks),
        by_kind_mb=dict(sorted(by_kind.items(), key=lambda item: -item[1])),
    )


def _memory_mb(pid: int) -> dict[str, float]:
    """The sums over all mappings of a process, by the kernel's names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(size_kib) * 1024 / 1e6 for name, size_kib, _unit in fields}


def _kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    if match := TITLE.match(command):
        return match[1]
    for mark in ("raylet/raylet", "gcs_server", "dashboard", "runtime_env", "ml-server", "serve_app.cli", "ffmpeg"):
        if mark in command:
            return mark.rpartition("/")[2]
    return "other"


def processor_s(session_id: int) -> float:
    """Processor seconds of all processes so far, those included that ended under a living parent."""
    total = 0
    for pid in session_members(session_id):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS_PER_S


def machine_busy_s() -> float:
    """Processor seconds of the whole machine so far, those included that a hypervisor took."""
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + stolen) / TICKS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a piece of work took."""

    wall_s: float
    processor_s: float
    """Of the server."""
    others: float
    """Share of the machine's processors that everything else took meanwhile, 0-1: how far to trust `wall_s`."""

    @property
    def disturbance(self) -> str:
        return f"{max(0.0, self.others):.0%}"


class Stopwatch:
    """Starts at once; of a server that is not there yet, name the session when reading."""

    def __init__(self, session_id: int | None = None) -> None:
        self._session_id = session_id
        self._own_s = processor_s(session_id) if session_id else 0.0
        self._busy_s = machine_busy_s()
        self._began = time.monotonic()

    def read(self, session_id: int | None = None) -> Spent:
        """What was spent until now."""
        wall_s = time.monotonic() - self._began
        own_s = processor_s(session_id or self._session_id or 0) - self._own_s
        others_s = machine_busy_s() - self._busy_s - own_s
        return Spent(wall_s=wall_s, processor_s=own_s, others=others_s / wall_s / (os.cpu_count() or 1))


class Watch:
    """Looks every second until its context ends; `highest` is the look with the most memory."""

    def __init__(self, session_id: int) -> None:
        self._session_id = session_id
        self._ending = threading.Event()
        self.highest = footprint(session_id)

    def _look(self) -> None:
        while not self._ending.wait(SAMPLE_EVERY_S):
            now = footprint(self._session_id)
            if now.pss_mb > self.highest.pss_mb:
                self.highest = now

    @contextmanager
    def looking(self) -> Iterator[Watch]:
        """Look beside what is done in the block."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            thread.join()
