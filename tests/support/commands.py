"""The commands as a user gives them, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from serve_app.cli.child_process import ChildProcess, free_port
from tests.support.leaks import WATCH
from tests.support.process import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
CLEAR = ROOT / "examples" / "media" / "clear.flac"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A state directory: Ray's sockets lie below, whose names may not be long."""
    path = Path(tempfile.mkdtemp(prefix="ml-"))
    try:
        yield path
        WATCH.left(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def a_ray(state_dir: Path, **more: str) -> Iterator[dict[str, str]]:
    """`ray start --head` on ports of its own, `more` in its environment; the environment for its clients."""
    port, dashboard = free_port(), free_port()
    environment = clean_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(state_dir / "token"),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "ML_SERVER_STATE_DIR": str(state_dir),
        "PYTHONPATH": str(ROOT),
        **more,
    }
    (state_dir / "token").write_text("a" * 64)
    head = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        "--port",
        str(port),
        "--dashboard-host",
        "127.0.0.1",
        "--dashboard-port",
        str(dashboard),
        "--ray-client-server-port",
        str(free_port()),
        "--temp-dir",
        str(state_dir / "r"),
        "--disable-usage-stats",
    ]
    process = ChildProcess(head, log_path=state_dir / "ray.log", environment=environment)
    with process:
        deadline = time.monotonic() + 60
        while True:
            assert process.exit_code is None, process.tail()
            assert time.monotonic() < deadline, process.tail()
            try:
                httpx.get(f"http://127.0.0.1:{dashboard}/api/version", timeout=2, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.3)
        yield environment


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def finish_a_job(url: str, state_dir: Path) -> str:
    """A file goes in, a transcript comes out: the text. The result lies in `r.json`."""
    done = call(
        str(BIN / "ml-server"), "submit", str(CLEAR), "--wait", "--server", url, "--save", str(state_dir / "r.json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
