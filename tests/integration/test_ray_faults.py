"""kill -9 of each process that Ray and Serve run, ten jobs in flight: nothing is lost, all go on by themselves."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
import yaml

from serve_app import testing
from serve_app.cli.child_process import ChildProcess, free_port, session_members
from tests.support.backend import Backend
from tests.support.leaks import WATCH
from tests.support.process import ROOT, clean_environment, wait_healthy
from tests.support.production import EARS
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
STAGES = ("AudioExtractor", "SpeechDetector", "Transcriber", "Diarizer", "ProsodyAnalyzer", "EmotionAnalyzer")
PROCESSES = {
    "driver": "ray::JobActor",
    "manager": "ray::JobManager",
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
    **{name: f"ray::ServeReplica:[^:]*:{name}" for name in ("Ingress", *STAGES)},
}
"""What is killed, by the titles that Ray gives its processes."""
WAVES = (("controller",), ("driver", "manager", *STAGES), ("proxy", "Ingress"))
"""What is killed at once, where time is short."""
REPLACED = ("manager", "Ingress", *STAGES)
"""By a new release."""
SERVE = "/api/serve/applications/"
RAYLET = r"\S*/raylet/raylet"


class Server:
    """`ml-server up` that can be started again and again, on the same port and state directory."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._folder = folder
        self._config = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text(encoding="utf-8"))
        application = self._config["applications"][0]
        application["import_path"] = testing.IMPORT_PATH
        application["args"] |= EARS | {"state_dir": str(folder)}
        for part in application["deployments"]:
            part.pop("autoscaling_config", None)
            part["health_check_period_s"] = 1  # what is dead is replaced sooner: the test has other things to wait for
        self._config["http_options"]["port"] = free_port()
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(self._config), encoding="utf-8")
        self.url = f"http://127.0.0.1:{self._config['http_options']['port']}"
        self.database_url = f"sqlite:///{folder / 'ml-server.db'}"
        self._log = folder / "up.log"
        self._command = [sys.executable, "-m", "serve_app.cli", "up", "--config", str(path)]

    def start(self) -> None:
        """Until it is ready."""
        environment = {"PYTHONPATH": str(ROOT), testing.FAULTS_VARIABLE: str(self._folder / "faults.json")}
        environment["ML_SERVER_LIMITS__ATTEMPTS"] = "6"  # one job may see all the faults of this file
        self.process = ChildProcess(
            self._command, log_path=self._log, environment=clean_environment() | environment, stop_timeout_s=20
        )
        self._stack.enter_context(self.process)
        leader = self.process._process
        assert leader is not None
        self.session = leader.pid
        wait_healthy(self.url, lambda: self.process.exit_code is None, self._log)

    def take(self, stage_s: float) -> None:
        """What a stage takes for a job from now on."""
        testing.Faults.write(self._folder / "faults.json", stage_s=(stage_s, stage_s))

    def deploy(self, release: str) -> None:
        """What `serve deploy` does with a file of another release; until Serve has done all."""
        self._config["applications"][0]["args"]["release"] = release
        dashboard = re.findall(r"Ray dashboard (http://\S+)", self._log.read_text())[-1]
        token = {"authorization": f"Bearer {(self._folder / 'ray-token').read_text()}"}
        with httpx.Client(base_url=dashboard, headers=token, timeout=30, trust_env=False) as http:
            http.put(SERVE, json=self._config).raise_for_status()
            until(lambda: http.get(SERVE).json()["applications"]["ml-server"]["status"] == "RUNNING", within_s=180)

    def pids(self, title: str) -> list[int]:
        """Of its session, and of no other server's, those whose command line begins so."""
        found = []
        for pid in session_members(self.session):
            with suppress(OSError):  # it ended meanwhile
                if re.match(rf"{title}\b", Path(f"/proc/{pid}/cmdline").read_text()):
                    found.append(pid)
        return found

    def kill(self, *titles: str) -> None:
        """One of each, and wait until there are others in their places."""
        until(lambda: all(map(self.pids, titles)), within_s=10)  # a driver may just have ended, its job's row not yet
        before = {title: set(self.pids(title)) for title in titles}
        for pids in before.values():
            os.kill(min(pids), signal.SIGKILL)
        for title, pids in before.items():
            until(lambda: set(self.pids(title)) - pids, within_s=60)  # noqa: B023 - used at once

    def kill_all(self) -> None:
        """Every process of its session."""
        while members := session_members(self.session):
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server():
    folder = Path(tempfile.mkdtemp(prefix="ml-"))  # short: Ray's sockets lie in it
    try:
        with ExitStack() as stack:
            server = Server(folder, stack)
            server.take(STAGE_S)
            server.start()
            yield server
            WATCH.running(folder)
        WATCH.left(folder)
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
        server.kill(*(PROCESSES[name] for name in wave))
    for wave, at in killed_at.items():
        report(wave, load.all_resumed_s(at, within_s=RESUMED_WITHIN_S))


@pytest.mark.timeout(3000)
def test_d3_each_kill_by_itself(server, load):
    """The same kills one by one, twice, each when all jobs have gone on after the one before."""
    for name, title in [*PROCESSES.items()] * 2:
        load.wait(all_run, within_s=60)
        killed_at = time.monotonic()
        server.kill(title)
        report(name, load.all_resumed_s(killed_at, within_s=RESUMED_WITHIN_S))


def test_d7_d14_a_new_release_takes_over(server, load):
    """`serve deploy` of another release under ten running jobs: none begins anew, and the manager is the new one's."""
    titles = [PROCESSES[name] for name in REPLACED]
    pids = {title: set(server.pids(title)) for title in titles}
    load.wait(all_run, within_s=60)
    before = load.running()
    server.deploy("next")
    until(lambda: not any(pids[title] & set(server.pids(title)) for title in titles), within_s=120)
    until(lambda: len(server.pids(PROCESSES["manager"])) == 1, within_s=60)
    now = load.looks[-1].rows
    assert not [job for job in before if now[job.job_id].attempt > max(1, job.attempt)]


def test_d3_a_killed_ray_loses_no_job(server, load):
    """SIGKILL for the raylet: the server ends with an error, as it would never work again; then for all processes."""
    load.wait(all_run, within_s=60)
    killed_at = time.monotonic()
    os.kill(*server.pids(RAYLET), signal.SIGKILL)
    until(lambda: server.process.exit_code is not None, within_s=60)
    assert server.process.exit_code == 1
    assert "Ray has ended (raylet)" in server.process.tail(5)
    server.start()
    server.kill_all()
    server.start()
    resumed_s = load.all_resumed_s(killed_at, ready_at=time.monotonic(), within_s=RESUMED_WITHIN_S)
    report("raylet, then all", resumed_s)


def test_d3_d7_nothing_was_lost(server, load):
    """Of all jobs of the tests above: 0 lost, 0 failed, each with the same result, each told its end once."""
    server.take(QUICK_STAGE_S)
    load.finish(within_s=240)
    load.check()
    print(f"{len(load.accepted)} jobs")


def all_run(rows):
    return sum(job.state == "running" for job in rows) == JOBS


def report(killed, resumed_s):
    median_s, max_s = statistics.median(resumed_s), max(resumed_s)
    print(f"{killed}: {len(resumed_s)} jobs went on after {median_s:.1f} s, max {max_s:.1f} s")


def until(true, *, within_s):
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
