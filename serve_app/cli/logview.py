"""Shows the log file of a running server: as readable text on a terminal, as the JSON lines themselves elsewhere."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING

from deployments.logs import JOB_FIELD

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.2
_SHOWN = frozenset({"time", "level", "logger", "message", "pid", "trace", JOB_FIELD})
"""Fields that a line does not show as `key=value`."""


def readable(line: str) -> str:
    """Return a JSON line as text, such as `09:21:05 INFO    manager  admitted  job=abc waited_s=0.1`."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    head = f"{fields['time'][11:19]} {fields['level']:<7} {fields['logger']:<12} {fields['message']}"
    extras = {"job": fields[JOB_FIELD]} if JOB_FIELD in fields else {}
    extras |= {key: value for key, value in fields.items() if key not in _SHOWN and not key.startswith("serve_")}
    tail = " ".join(f"{key}={value}" for key, value in extras.items() if value is not None)
    text = f"{head}  {tail}" if tail else head
    return "\n    ".join([text, *fields.get("trace", [])])


class LogView:
    """Follows a file that other processes append to, from its present end until `close`."""

    def __init__(self, path: Path, *, as_text: bool) -> None:
        path.touch(mode=0o600)
        self._file = path.open(encoding="utf-8", errors="replace")
        self._file.seek(0, 2)
        self._as_text = as_text
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Show the rest of the file and stop."""
        self._closed.set()
        self._thread.join()
        self._file.close()

    def _follow(self) -> None:
        while not self._closed.wait(POLL_S):
            self._show()
        self._show()

    def _show(self) -> None:
        for line in self._file:
            sys.stdout.write((readable(line.rstrip("\n")) if self._as_text else line.rstrip("\n")) + "\n")
        sys.stdout.flush()
