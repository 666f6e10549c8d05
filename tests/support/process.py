"""The real server as a process, started as a user starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from serve_app.cli.child_process import ChildProcess, free_port, session_members
from tests.support.leaks import CALLBACK_HEADERS, WATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
START_S = 180
T = TypeVar("T")
REPLICA = "ray::ServeReplica:[^:]*:{}"
"""The title of a deployment's replica."""


class RunningServer:
    def __init__(self, url: str, state_dir: Path, process: ChildProcess, *, api_key: str | None = None) -> None:
        self.url = url
        self.state_dir = state_dir
        self.process = process
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        hooks = {"response": [WATCH.answer]}
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, headers=headers, event_hooks=hooks)

    def post(self, video_url: str, *, job_id: str | None = None, **fields: Any) -> httpx.Response:
        """Submit a job under a fresh id."""
        own = {"job_id": job_id or str(uuid.uuid4()), "video_url": video_url, "callback_headers": CALLBACK_HEADERS}
        content = own | fields
        return self.http.post("/api/upload-video/process-video", json=content)

    def start(self, video_url: str, **fields: Any) -> str:
        """Submit a job that has to be taken; its id."""
        answer = self.post(video_url, **fields)
        assert answer.status_code == 200, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    def status(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/upload-video/status/{job_id}")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def wait(self, job_id: str, *statuses: str, within_s: float = 60) -> dict[str, Any]:
        """Poll until the job has one of `statuses` (by default: has ended)."""
        wanted = statuses or ("completed", "failed")
        deadline = time.monotonic() + within_s
        while (state := self.status(job_id))["status"] not in wanted:
            assert time.monotonic() < deadline, f"after {within_s} s: {state}"
            time.sleep(0.1)
        return state

    def processes(self, title: str) -> list[int]:
        """Those of its session whose titles begin with what `title`, a regular expression, describes."""
        assert self.process._process is not None
        return titled(session_members(self.process._process.pid), title)

    @property
    def drivers(self) -> list[int]:
        return self.processes("ray::JobActor")

    def replicas(self, deployment: str) -> list[int]:
        """The processes of a deployment's replicas."""
        return self.processes(REPLICA.format(deployment))

    def cancel(self, job_id: str) -> httpx.Response:
        return self.http.delete(f"/api/upload-video/jobs/{job_id}")


@contextmanager
def running_server(
    *arguments: str, environment: dict[str, str] | None = None, api_key: str | None = None
) -> Iterator[RunningServer]:
    """`ml-server up` on a free port with a state directory of its own, until the context ends."""
    state_dir = Path(tempfile.mkdtemp(prefix="ml-"))
    port = free_port()
    log_path = state_dir / "up.log"
    command = [
        sys.executable,
        "-m",
        "serve_app.cli",
        "up",
        "--port",
        str(port),
        "--state-dir",
        str(state_dir),
        *arguments,
    ]
    process = ChildProcess(command, log_path=log_path, environment=clean_environment() | (environment or {}))
    try:
        with process:
            server = RunningServer(f"http://127.0.0.1:{port}", state_dir, process, api_key=api_key)
            wait_healthy(server.url, lambda: process.exit_code is None, log_path)
            yield server
            WATCH.running(state_dir)
            server.http.close()
    finally:
        WATCH.left(state_dir, (environment or {}).get("ML_SERVER_DATABASE_URL"))
        shutil.rmtree(state_dir, ignore_errors=True)


def wait_healthy(url: str, alive: Callable[[], bool], log_path: Path) -> None:
    """Until /health is 200; fails with the log's end when the server ends first."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert alive(), log_path.read_text()[-3000:]
        assert time.monotonic() < deadline, log_path.read_text()[-3000:]
        time.sleep(0.2)


def clean_environment() -> dict[str, str]:
    """What the tests set for every Ray and every server that they start."""
    return {"RAY_USAGE_STATS_ENABLED": "0", "PYANNOTE_METRICS_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": ""}


def titled(processes: Iterable[int], title: str) -> list[int]:
    """Those of `processes` whose titles, which Ray gives them, begin so; `title` is a regular expression."""
    found = []
    for pid in processes:
        with suppress(OSError):  # it ended meanwhile
            found += [pid] if re.match(rf"{title}\b", Path(f"/proc/{pid}/cmdline").read_text()) else []
    return found


@contextmanager
def held_still(processes: Sequence[int]) -> Iterator[None]:
    """SIGSTOP while the context is open."""
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def until(true: Callable[[], bool], *, within_s: float = 90) -> None:
    """Wait for it; fail where it does not come."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def eventually(look: Callable[[], T], good: Callable[[T], bool], *, within_s: float = 90) -> T:
    """What `look` sees as soon as it is `good`."""
    deadline = time.monotonic() + within_s
    while not good(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.3)
    return seen


def environment_marked(mark: str) -> list[str]:
    """Command lines of all processes that inherited an environment variable with the value `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found
