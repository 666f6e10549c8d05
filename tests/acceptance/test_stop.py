"""D7: `ml-server up` is told to stop while jobs run, and started again on the same state directory."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from serve_app.cli.child_process import ChildProcess, free_port
from tests.support.leaks import WATCH
from tests.support.process import ROOT, RunningServer, clean_environment, environment_marked, wait_healthy
from tests.support.servers import hanging, whole
from tests.support.sources import Sources

CLEAR = ROOT / "examples" / "media" / "clear.flac"
STOP_S = 30
HURRIED_S = 20
LEAVE_S = 20


@pytest.fixture
def state_dir():
    path = Path(tempfile.mkdtemp(prefix="ml-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def an_up(state_dir: Path):
    """One `ml-server up`."""
    port, log = free_port(), state_dir / "up.log"
    command = [sys.executable, "-m", "serve_app.cli", "up", "--port", str(port), "--state-dir", str(state_dir)]
    mark = {"TEST_MARK": f"mark-{uuid.uuid4()}"}
    with ChildProcess(command, log_path=log, environment=clean_environment() | mark) as process:
        server = RunningServer(f"http://127.0.0.1:{port}", state_dir, process)
        wait_healthy(server.url, lambda: process.exit_code is None, log)
        yield server
        server.http.close()
        WATCH.left(state_dir)
        deadline = time.monotonic() + LEAVE_S
        while left := environment_marked(mark["TEST_MARK"]):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


def attempts(state_dir: Path) -> dict[str, int]:
    with closing(sqlite3.connect(state_dir / "ml-server.db")) as db:
        return dict(db.execute("SELECT job_id, attempt FROM jobs"))


def stopped(server: RunningServer, *, signals: int = 1) -> tuple[float, list[int]]:
    """Seconds from the signal to the end, and the answers to the POSTs of that time."""
    answers: list[int] = []
    over = threading.Event()

    def keep_posting() -> None:
        while not over.wait(0.1):
            try:
                answers.append(server.post("http://127.0.0.1:9/x.mp4", job_id=f"late-{uuid.uuid4()}").status_code)
            except httpx.HTTPError:
                continue

    began = time.monotonic()
    for _ in range(signals):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    poster = threading.Thread(target=keep_posting)
    poster.start()
    try:
        while server.process.exit_code is None:
            assert time.monotonic() - began < STOP_S + 15, server.process.tail()
            time.sleep(0.1)
    finally:
        over.set()
        poster.join()
    assert server.process.exit_code == 0, server.process.tail()
    return time.monotonic() - began, answers


@pytest.mark.parametrize("stops", [1, pytest.param(4, marks=pytest.mark.full)])
def test_d7_sigterm_costs_no_job_an_attempt(state_dir, stops):
    """Exit within 30 s without a process left, nothing taken meanwhile; the next start resumes all; twice: at once."""
    honest = whole(CLEAR.read_bytes())
    handler = hanging

    async def handle(request, writer):
        await handler(request, writer)

    with Sources() as sources:
        url = sources.serve(handle, "talk.flac")
        ids: list[str] = []
        for _ in range(stops):
            with an_up(state_dir) as server:
                ids = ids or [server.start(url), server.start(url)]
                deadline = time.monotonic() + 60
                while [attempts(state_dir)[job_id] for job_id in ids] != [1, 1]:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                took_s, answers = stopped(server)
                print(f"stopped in {took_s:.1f} s, POSTs meanwhile: {answers}")
                assert took_s < STOP_S
                assert set(answers[answers.index(503) :] if 503 in answers else answers) <= {503}
                assert answers.count(200) <= 15  # of ten a second: a moment, on a busy machine
                assert [attempts(state_dir)[job_id] for job_id in ids] == [0, 0]
        handler = honest
        with an_up(state_dir) as server:
            assert {server.wait(job_id, within_s=120)["status"] for job_id in ids} == {"completed"}
            assert [attempts(state_dir)[job_id] for job_id in ids] == [1, 1]
            took_s, _ = stopped(server, signals=2)
            assert took_s < HURRIED_S
