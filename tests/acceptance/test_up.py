"""One `ml-server up` after another on one state directory: jobs, a user's commands, and both ways to stop (D7)."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from serve_app.cli.child_process import ChildProcess, free_port
from tests.support.commands import BIN, call, finish_a_job, short_folder
from tests.support.leaks import WATCH
from tests.support.process import RunningServer, clean_environment, environment_marked, wait_healthy
from tests.support.servers import hanging, whole
from tests.support.sounds import SPEECH
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STOP_S = 30
HURRIED_S = 20
LEAVE_S = 20
REFUSED_EVERY_S = 0.1
FIRST_PAUSE_S, SLOWER, LONGEST_PAUSE_S = 0.02, 1.3, 0.5
"""A quick stop lasts half a second, and each POST that is taken is a job for the next server: twenty in 6 s."""
MOST_TAKEN = 20
BETWEEN_SIGNALS_S = 0.2
"""The second has to find the first one taken."""


@contextmanager
def an_up(state_dir: Path) -> Iterator[RunningServer]:
    """One `ml-server up`."""
    port, log = free_port(), state_dir / "up.log"
    command = [str(BIN / "ml-server"), "up", "--port", str(port), "--state-dir", str(state_dir)]
    mark = {"TEST_MARK": f"mark-{uuid.uuid4()}"}
    with ChildProcess(command, log_path=log, environment=clean_environment() | mark) as process:
        server = RunningServer(f"http://127.0.0.1:{port}", state_dir, process)
        wait_healthy(server.url, lambda: process.exit_code is None, log)
        assert len(environment_marked(mark["TEST_MARK"])) > 5
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


def stopped(server: RunningServer, number: signal.Signals, *, signals: int = 1) -> tuple[float, list[int]]:
    """Seconds from the signal to the end, and the answers to the POSTs of that time."""
    answers: list[int] = []
    over = threading.Event()

    def keep_posting() -> None:
        while not over.wait(
            REFUSED_EVERY_S if 503 in answers else min(FIRST_PAUSE_S * SLOWER ** len(answers), LONGEST_PAUSE_S)
        ):
            try:
                answers.append(server.post("http://127.0.0.1:9/x.mp4", job_id=f"late-{uuid.uuid4()}").status_code)
            except httpx.HTTPError:
                continue

    began = time.monotonic()
    server.process.send_signal(number)
    poster = threading.Thread(target=keep_posting)
    poster.start()
    for _ in range(1, signals):
        time.sleep(BETWEEN_SIGNALS_S)
        server.process.send_signal(number)
    try:
        while server.process.exit_code is None:
            assert time.monotonic() - began < STOP_S + 15, server.process.tail()
            time.sleep(0.1)
    finally:
        over.set()
        poster.join()
    assert server.process.exit_code == 0, server.process.tail()
    return time.monotonic() - began, answers


@dataclass(frozen=True, slots=True)
class Stop:
    """How one went."""

    took_s: float
    answers: list[int]
    attempts: list[int]
    """Of the two jobs that ran."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Two jobs, and the servers that were told to stop while they ran."""

    state_dir: Path
    job_ids: list[str]
    stops: list[Stop]


@pytest.fixture(scope="module", params=[1, pytest.param(4, marks=pytest.mark.full)])
def interrupted(request: pytest.FixtureRequest) -> Iterator[Interrupted]:
    """Their video does not come until the last server has stopped."""
    handler = hanging

    async def handle(*exchange):
        await handler(*exchange)

    with short_folder() as state_dir, Sources() as sources:
        url = sources.serve(handle, "talk.ogg")
        ids: list[str] = []
        stops = []
        for _ in range(request.param):
            with an_up(state_dir) as server:
                ids = ids or [server.start(url), server.start(url)]
                deadline = time.monotonic() + 60
                while [attempts(state_dir)[job_id] for job_id in ids] != [1, 1]:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                told = stopped(server, signal.SIGTERM)
                stops.append(Stop(*told, [attempts(state_dir)[job_id] for job_id in ids]))
        print(f"stopped: {stops}")
        handler = whole((SPEECH / "english_espeak.ogg").read_bytes())
        yield Interrupted(state_dir, ids, stops)


@pytest.fixture(scope="module")
def restarted(interrupted: Interrupted) -> Iterator[RunningServer]:
    """The server that was started after them."""
    with an_up(interrupted.state_dir) as server:
        yield server


def test_d7_sigterm_costs_no_job_an_attempt(interrupted: Interrupted) -> None:
    """Exit within 30 s without a process left, nothing taken meanwhile, and no attempt counted."""
    for stop in interrupted.stops:
        assert stop.took_s < STOP_S
        assert 503 in stop.answers
        assert set(stop.answers[stop.answers.index(503) :]) == {503}
        assert stop.answers.count(200) <= MOST_TAKEN
        assert stop.attempts == [0, 0]


def test_d7_the_next_start_resumes_all(interrupted: Interrupted, restarted: RunningServer) -> None:
    """The jobs of the server that stopped end with the new one, in their first attempt."""
    assert {restarted.wait(job_id, within_s=120)["status"] for job_id in interrupted.job_ids} == {"completed"}
    assert [attempts(interrupted.state_dir)[job_id] for job_id in interrupted.job_ids] == [1, 1]


def test_up_says_where_it_is(restarted: RunningServer) -> None:
    """A line when it is ready: the API, the console, Ray's dashboard."""
    deadline = time.monotonic() + 10
    while f"ML Server ready: {restarted.url}" not in (log := (restarted.state_dir / "up.log").read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.1)
    assert f"console {restarted.url}/console" in log
    assert "Ray dashboard http://127.0.0.1:" in log


def test_commands_talk_to_it(restarted: RunningServer) -> None:
    """A submitted file becomes a transcript and a JSON file, jobs are listed, an unknown one is an error."""
    url, folder = restarted.url, restarted.state_dir
    assert "SPEAKER_01" in finish_a_job(url, folder)
    assert (folder / "r.json").stat().st_size > 1000
    assert "completed" in call(str(BIN / "ml-server"), "jobs", "--server", url).stdout
    unknown = call(str(BIN / "ml-server"), "status", "nobody", "--server", url)
    assert unknown.returncode == 1
    assert "JOB_NOT_FOUND" in unknown.stdout + unknown.stderr


def test_d7_ctrl_c_twice_ends_it_at_once(restarted: RunningServer) -> None:
    """The second one does not wait for jobs; no process is left, which is looked at when this file's tests are over."""
    took_s, _ = stopped(restarted, signal.SIGINT, signals=2)
    assert took_s < HURRIED_S
