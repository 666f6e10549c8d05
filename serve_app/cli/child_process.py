"""Runs a program while a context is open, and ends it and everything that it started afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAIL_LINES = 20
KILL_TIMEOUT_S = 5


class ChildProcess:
    """Runs `command` while the context is open. Its output goes to `log_path`; `environment` adds to ours."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        stop_timeout_s: float = 45,
    ) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = log_path

    def __enter__(self) -> Self:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, by a list
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C on the terminal is ours: we stop it in order
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._process.poll() if self._process else None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program, not to what it started. Does nothing if it has ended."""
        if self._process:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Send SIGTERM, wait, and kill what is left of its session. Safe to call twice.

        Ctrl-C while waiting skips the rest of the wait, not the kill.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=self._stop_timeout_s)
        finally:
            end_session(process.pid)
            process.wait()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its output."""
        with suppress(OSError), self.log_path.open(errors="replace") as log:
            return "".join(deque(log, maxlen=lines)).rstrip()
        return ""


def end_session(session_id: int) -> None:
    """Kill what is left of a session: all its processes if /proc lists them, else the leader's group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session_id, signal.SIGKILL)
    deadline_s = time.monotonic() + KILL_TIMEOUT_S
    while (members := session_members(session_id)) and time.monotonic() < deadline_s:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def session_members(session_id: int) -> list[int]:
    """Return the pids of a session's living processes from /proc; none on other systems than Linux."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            state, _parent, _group, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == session_id and state not in "ZX":
                members.append(int(folder.name))
    return members


def free_port() -> int:
    """Return a loopback TCP port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
