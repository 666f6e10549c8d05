"""kill -9 of each process that Ray and Serve run, ten jobs in flight: nothing is lost, all go on by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

import pytest

from serve_app import testing
from tests.chaos.server import MortalServer, until
from tests.support.backend import Backend
from tests.support.servers import head
from tests.support.sounds import noise, written
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.full

JOBS = 10
RESUMED_WITHIN_S = 120
AUDIO_S = 20
DOWNLOAD_S = 2
STAGE_S = 2.0
"""What each stage takes for a job: jobs come in faster than that, so that every stage is busy whenever it is killed."""
QUICK_STAGE_S = 0.1
STAGES = tuple(testing.ENGINES)
KINDS = ("driver", "manager", "proxy", "controller", "Ingress", *STAGES)
"""What is killed."""
WAVES = (("controller",), ("driver", "manager", *STAGES), ("proxy", "Ingress"))
"""What is killed at once, where time is short."""
REPLACED = ("manager", "Ingress", *STAGES)
"""By a new release."""


@pytest.fixture(scope="module")
def server():
    folder = Path(tempfile.mkdtemp(prefix="ml-"))  # short: Ray's sockets lie in it
    try:
        with MortalServer(folder, environment={"ML_SERVER_LIMITS__ATTEMPTS": "6"}) as server:  # one job sees all faults
            server.take(STAGE_S, STAGE_S)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def load(server, sources, tmp_path_factory):
    """Ten jobs in flight, from the first test to the last."""
    talk = written(tmp_path_factory.mktemp("talk") / "talk.wav", noise(AUDIO_S))
    video = sources.serve(slowly(talk.read_bytes()))
    with Backend() as backend, SteadyLoad(server.url, server.database_url, video, backend, in_flight=JOBS) as load:
        load.wait(lambda rows: sum(job.progress > 0 for job in rows) > JOBS / 2, within_s=120)
        yield load


def slowly(body):
    """A source that takes its time: a download is under way nearly always."""

    async def handle(_, writer):
        pieces = 10
        size = -(-len(body) // pieces)
        writer.write(head(200, Content_Length=len(body)))
        for number in range(pieces):
            writer.write(body[number * size : (number + 1) * size])
            await writer.drain()
            await asyncio.sleep(DOWNLOAD_S / pieces)

    return handle


def test_d3_killed_processes_lose_no_job(server, load):
    """SIGKILL for a driver, the manager, a replica of each deployment, controller and proxy: all jobs go on."""
    killed_at = {}
    for wave in WAVES:
        load.wait(all_run, within_s=60)
        killed_at[" + ".join(wave)] = time.monotonic()
        server.kill(*wave)
    for wave, at in killed_at.items():
        report(wave, load.all_resumed_s(at, within_s=RESUMED_WITHIN_S))


@pytest.mark.timeout(3000)
def test_d3_each_kill_by_itself(server, load):
    """The same kills one by one, twice, each when all jobs have gone on after the one before."""
    for name in KINDS * 2:
        load.wait(all_run, within_s=60)
        killed_at = time.monotonic()
        server.kill(name)
        report(name, load.all_resumed_s(killed_at, within_s=RESUMED_WITHIN_S))


def test_d7_d14_a_new_release_takes_over(server, load):
    """`serve deploy` of another release under ten running jobs: none begins anew, and the manager is the new one's."""
    pids = {name: set(server.pids(name)) for name in REPLACED}
    load.wait(all_run, within_s=60)
    before = load.running()
    server.deploy("next")
    until(lambda: not any(pids[name] & set(server.pids(name)) for name in REPLACED), within_s=120)
    until(lambda: len(server.pids("manager")) == 1, within_s=60)
    now = load.looks[-1].rows
    assert not [job for job in before if now[job.job_id].attempt > max(1, job.attempt)]


def test_d3_a_killed_ray_loses_no_job(server, load):
    """SIGKILL for the raylet: the server ends with an error, as it would never work again; then for all processes."""
    load.wait(all_run, within_s=60)
    killed_at = time.monotonic()
    os.kill(*server.pids("raylet"), signal.SIGKILL)
    until(lambda: server.process.exit_code is not None, within_s=60)
    assert server.process.exit_code == 1
    assert "Ray has ended (raylet)" in server.process.tail(5)
    server.start()
    server.crash()
    server.start()
    resumed_s = load.all_resumed_s(killed_at, ready_at=time.monotonic(), within_s=RESUMED_WITHIN_S)
    report("raylet, then all", resumed_s)


def test_d3_d7_nothing_was_lost(server, load):
    """Of all jobs of the tests above: 0 lost, 0 failed, each with the same result, each told its end once."""
    server.take(QUICK_STAGE_S, QUICK_STAGE_S)
    load.finish(within_s=240)
    load.check()
    print(f"{len(load.accepted)} jobs")


def all_run(rows):
    return sum(job.state == "running" for job in rows) == JOBS


def report(killed, resumed_s):
    median_s, max_s = statistics.median(resumed_s), max(resumed_s)
    print(f"{killed}: {len(resumed_s)} jobs went on after {median_s:.1f} s, max {max_s:.1f} s")
