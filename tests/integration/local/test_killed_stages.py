"""D2 and D3 on configs/local.yaml: at each stage, its replica and the job's driver are killed together."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from serve_app.cli.child_process import session_members
from tests.benchmarks.footprint import session_of
from tests.chaos.checker import comparable, difference

STAGES = ("AudioExtractor", "SpeechDetector", "Diarizer", "Transcriber", "ProsodyAnalyzer", "EmotionAnalyzer")
DRIVER = re.compile(r"ray::JobActor\b")
WITHIN_S = 180


def at_work(stage: str) -> re.Pattern[str]:
    """Ray names the method in the title of a process that does something."""
    return re.compile(rf"ray::ServeReplica:[^:]*:{stage}\.handle_request")


def processes(server, title: re.Pattern[str]) -> list[int]:
    found = []
    for pid in session_members(session_of(server)):
        with suppress(OSError):  # it ended meanwhile
            found += [pid] if title.match(Path(f"/proc/{pid}/cmdline").read_text()) else []
    return found


def kill(server, title: re.Pattern[str]) -> None:
    """As soon as there is one."""
    deadline = time.monotonic() + WITHIN_S
    while not (pids := processes(server, title)):
        assert time.monotonic() < deadline, title.pattern
    os.kill(pids[0], signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(server, sources, clear):
    url = sources.file(clear)
    return url, comparable(server.wait(server.start(url), within_s=WITHIN_S)["result"])


@pytest.mark.full
@pytest.mark.parametrize("stage", STAGES)
def test_d2_d3_a_kill_at_each_stage_of_the_local_engines(server, undisturbed, backend, stage):
    """The stage's replica and the driver die at work: the job resumes, ends once, and its result is the undisturbed."""
    url, reference = undisturbed
    job_id = server.start(url, fastapi_base_url=backend.url)
    kill(server, at_work(stage))
    kill(server, DRIVER)
    died_at = time.monotonic()
    end = backend.wait_end(job_id, within_s=WITHIN_S)
    print(f"{stage}: the end came {end.at - died_at:.1f} s after the kills")
    assert end.body["status"] == "completed", end.body
    mine = comparable(json.loads(json.dumps(end.body["result"])))
    assert mine == reference, difference(reference, mine)
    assert len({got.headers["webhook-id"] for got in backend.of(job_id) if got.ended}) == 1
