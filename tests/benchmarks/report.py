"""How the measurements are told: the machine they were made on, and markdown tables."""

from __future__ import annotations

import datetime as dt
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNTITLED_CPU = "unknown processor"


def heading() -> str:
    """The machine, the system, Python and the date, as one markdown line."""
    parts = (
        f"{os.cpu_count()} cores of {_cpu_name()}",
        f"{_memory_bytes() / 2**30:.0f} GiB",
        _system(),
        f"Python {platform.python_version()}",
        dt.datetime.now(dt.UTC).date().isoformat(),
    )
    return ", ".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(row(*cells) for cells in (head, ["---"] * len(head), *rows))


def row(*cells: object) -> str:
    """One line of a table, to be printed when it is known."""
    return f"| {' | '.join(map(str, cells))} |"


def say(text: str = "") -> None:
    """Print at once, so that a long measurement can be followed."""
    print(text, flush=True)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or UNTITLED_CPU
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), UNTITLED_CPU)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name} ({platform.release()})"
