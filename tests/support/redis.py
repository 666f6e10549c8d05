"""A Redis server of the tests' own, which keeps what a Ray cluster's head knows; gone afterwards."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.cli.child_process import ChildProcess, free_port
from tests.support.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "redis-server"
START_S = 30


def missing() -> str | None:
    """What a Redis test lacks here; None where it can run."""
    return None if shutil.which(PROGRAM) else "no Redis server here: apt-get install redis-server"


def require() -> None:
    need(missing() is None, f"{missing()}")


@contextmanager
def running_redis() -> Iterator[str]:
    """Its address, for the time of the context. It keeps all in memory: nothing here has to survive Redis itself."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    port = free_port()
    command = [PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    try:
        with ChildProcess(command, log_path=folder / "log") as process:
            deadline = time.monotonic() + START_S
            while not _listens(port):
                assert process.exit_code is None, process.tail()
                assert time.monotonic() < deadline, process.tail()
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
