"""D2 and D3 on configs/local.yaml: at each stage, its replica and the job's driver are killed together."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.chaos.checker import comparable, difference
from tests.support.process import REPLICA, until

STAGES = ("AudioExtractor", "SpeechDetector", "Diarizer", "Transcriber", "ProsodyAnalyzer", "EmotionAnalyzer")
WITHIN_S = 180


def kill(server, title: str) -> None:
    """As soon as there is one."""
    found: list[int] = []
    until(lambda: found.extend(server.processes(title)) or found, within_s=WITHIN_S)
    os.kill(found[0], signal.SIGKILL)


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
    kill(server, rf"{REPLICA.format(stage)}\.handle_request")  # which Ray writes where it does something
    kill(server, "ray::JobActor")
    died_at = time.monotonic()
    end = backend.wait_end(job_id, within_s=WITHIN_S)
    print(f"{stage}: the end came {end.at - died_at:.1f} s after the kills")
    assert end.body["status"] == "completed", end.body
    mine = comparable(json.loads(json.dumps(end.body["result"])))
    assert mine == reference, difference(reference, mine)
    assert len({got.headers["webhook-id"] for got in backend.of(job_id) if got.ended}) == 1
