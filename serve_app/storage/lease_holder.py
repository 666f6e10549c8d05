"""Names processes as holders of leases, so that others on the same machine can tell when such a process has ended.

Knows /proc and nothing of leases. Of a process on another machine it is never known: only its beats show it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
DEAD = {"Z", "X"}
"""States of a process that has ended and that its parent has not waited for yet."""


def new_holder() -> str:
    """Return a name for this process, at most 64 characters, different at each call."""
    mark = uuid.uuid4().hex[:12]
    try:
        return f"{_machine()}.{os.getpid()}.{_process(os.getpid())[1]}.{mark}"
    except OSError:  # no Linux
        return mark


def is_gone(holder: str) -> bool:
    """Return whether the holder's process has certainly ended."""
    machine, _, rest = holder.partition(".")
    try:
        if not rest or machine != _machine():
            return False
        pid, started, _ = rest.split(".")
        with suppress(PermissionError):  # another user's: it exists
            os.kill(int(pid), 0)
        state, started_now = _process(int(pid))
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return state in DEAD or started_now != started


def _machine() -> str:
    """Identify the machine, its boot and the container: process numbers are unique only within these."""
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    namespace = (PROC / "self/ns/pid").readlink()
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _process(pid: int) -> tuple[str, str]:
    """Return a process's state, and its start in ticks since boot: a number is used again, but not with that start."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
