"""How much memory this process takes for a while."""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")


class Growth:
    """What this process has had at the most since this was made, beyond what it had then."""

    def __init__(self) -> None:
        (PROCESS / "clear_refs").write_text("5")  # forget the highest use so far
        self._before_kb = _now_kb("VmRSS")

    @property
    def kb(self) -> int:
        return _now_kb("VmHWM") - self._before_kb


def _now_kb(name: str) -> int:
    """The kernel's figure of that name, in kB."""
    lines = (line.split() for line in (PROCESS / "status").read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == f"{name}:")
