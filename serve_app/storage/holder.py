"""Which process holds a lease, in a form that tells others of the same machine when that process is gone.

Knows /proc and nothing of leases. A process of another machine is never known to be gone: its beats have to tell.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
DEAD = {"Z", "X"}
"""States of a process that has ended and was not waited for."""


def new_holder() -> str:
    """A name for this process as a holder, at most 64 characters, never given twice."""
    mark = uuid.uuid4().hex[:12]
    try:
        return f"{_machine()}.{os.getpid()}.{_process(os.getpid())[1]}.{mark}"
    except OSError:  # no Linux
        return mark


def is_gone(holder: str) -> bool:
    """Whether the holder's process has ended for sure."""
    machine, _, rest = holder.partition(".")
    try:
        if not rest or machine != _machine():
            return False
        pid, started, _ = rest.split(".")
        with suppress(PermissionError):  # somebody else's, but there
            os.kill(int(pid), 0)
        state, started_now = _process(int(pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return state in DEAD or started_now != started


def _machine() -> str:
    """Changes with the machine, its start, and the container: a process number means something within these only."""
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    namespace = (PROC / "self/ns/pid").readlink()
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _process(pid: int) -> tuple[str, str]:
    """State, and start in ticks since the machine's: process numbers come again, both together do not."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
