"""configs/cluster.yaml on a cluster: a head without cores, a node with GPUs and one without, and later one more.

The jobs are in PostgreSQL, and what the head knows is in Redis where there is one. The GPUs are numbers only, and the
engines cheap ones. Replicas are held still in place of computing for long.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress

import pytest
import yaml

from serve_app.cli.child_process import ChildProcess, free_port
from tests.support import postgres, redis
from tests.support.contract import checked
from tests.support.leaks import WATCH
from tests.support.process import ROOT, RunningServer, until, wait_healthy
from tests.support.production import SMALL, production_environment
from tests.support.ray_nodes import running_nodes
from tests.support.sounds import TEXTS, in_a_row, speech, written
from tests.support.steady_load import SteadyLoad

CHEAP = SMALL | {
    "profile": "local",
    "diarizer": {"engine": "pyannote-ge2e"},
    "emotion": {"engine": "prosodic-lexical"},
}
SOON = {"upscale_delay_s": 0.5, "downscale_delay_s": 2, "look_back_period_s": 2}
METRICS = {"RAY_SERVE_MIN_HANDLE_METRICS_TIMEOUT_S": "1"} | {
    f"RAY_SERVE_{part}_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5" for part in ("HANDLE", "REPLICA")
}
JOBS = 10
SAID = ("english_espeak", "english_espeak_f3") * 3


@pytest.fixture(scope="module")
def config():
    """cluster.yaml as it is, but for the engines, and replicas that come and go within seconds."""
    content = yaml.safe_load((ROOT / "configs" / "cluster.yaml").read_text(encoding="utf-8"))
    application = content["applications"][0]
    application["args"] = CHEAP
    application["deployments"] = [part for part in application["deployments"] if not part["name"].endswith("Cpu")]
    for part in application["deployments"]:
        if part["name"] == "Transcriber":
            part["autoscaling_config"] |= SOON
    return content


@pytest.fixture(scope="module")
def database():
    """The URL of what all nodes share."""
    postgres.require()
    with postgres.running_postgres() as server, server.database() as url:
        yield url


@pytest.fixture(scope="module")
def heads_memory():
    """Ray's settings for a head that may be lost; none where there is no Redis."""
    if redis.missing():
        yield {}
        return
    with redis.running_redis() as address:
        yield {"RAY_REDIS_ADDRESS": address, "RAY_external_storage_namespace": "ml-server"}


@pytest.fixture(scope="module")
def cluster(config, database, heads_memory, tmp_path_factory):
    """The server on its nodes: what the nodes tell, and the line to the server."""
    folder = tmp_path_factory.mktemp("cluster")
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = METRICS | production_environment(folder / "diarizer")
    environment = {
        name: value for name, value in environment.items() if "__NET" in name or "CALLBACKS" in name or name in METRICS
    }
    environment |= {"ML_SERVER_STATE_DIR": str(folder / "state"), "ML_SERVER_LIMITS__PREFETCHES": "0"}
    environment |= {"ML_SERVER_DATABASE_URL": database} | heads_memory
    nodes = (
        {"name": "head", "num_cpus": 0},
        {"name": "gpu-1", "num_cpus": 16, "num_gpus": 2},
        {"name": "cpu", "num_cpus": 16},
    )
    port = free_port()
    with running_nodes(*nodes, environment=environment) as cluster:
        command = [sys.executable, "-m", "serve_app.cli", "up", "--config", str(path), "--address", cluster.address]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        process = ChildProcess(
            command, log_path=folder / "up.log", environment=cluster.environment | environment, stop_timeout_s=0.1
        )
        with process:
            server = RunningServer(f"http://127.0.0.1:{port}", folder, process)
            wait_healthy(server.url, lambda: process.exit_code is None, folder / "up.log")
            yield cluster, server
            server.http.close()
    WATCH.left(folder, database)


def test_each_has_its_place(cluster, config):
    """GPU deployments are where GPUs are, the ingress is on two nodes, and nothing is on the head."""
    nodes, _ = cluster
    until(lambda: all(nodes.replicas().values()), within_s=60)
    replicas = nodes.replicas()
    parts = {part["name"]: part for part in config["applications"][0]["deployments"]}
    assert set(replicas) == set(parts)
    for name, places in replicas.items():
        assert "head" not in places
        if parts[name]["ray_actor_options"].get("num_gpus"):
            assert set(places) == {"gpu-1"}
    assert replicas["Ingress"] == ["cpu", "gpu-1"]


@pytest.mark.full
def test_recognisers_come_and_go_with_the_load(cluster, config, sources, tmp_path):
    """Ten jobs: as many recognisers as a node's GPUs hold, four with another node; all words right; then one again."""
    nodes, server = cluster
    video = sources.file(written(tmp_path / "talk.wav", in_a_row(*(speech(name) for name in SAID))))
    assert nodes.replicas()["Transcriber"] == ["gpu-1"]
    with held_still(nodes) as hold:
        ids = [server.start(video, language="en", emotion_detection=False) for _ in range(JOBS)]
        until(lambda: hold() == ["gpu-1", "gpu-1"], within_s=60)
        assert fractions(nodes, config) == pytest.approx(2.0)
        nodes.add("gpu-2", num_cpus=16, num_gpus=2)
        until(lambda: hold() == ["gpu-1", "gpu-1", "gpu-2", "gpu-2"], within_s=30)
        assert "head" not in {place for places in nodes.replicas().values() for place in places}
        assert "head" not in nodes.actors("JobActor") + nodes.actors("JobManager")
        assert len(nodes.actors("JobActor")) == JOBS
    for job_id in ids:
        state = server.wait(job_id, within_s=60)
        assert state["status"] == "completed", state
        assert checked(state["result"]).text == " ".join(TEXTS[name] for name in SAID)
    until(lambda: len(nodes.replicas()["Transcriber"]) == 1, within_s=30)


def test_ingresses_and_one_manager_share_the_database(cluster, database, sources, backend, tmp_path):
    """Jobs that were posted at both ingress replicas are looked after by one manager: each ends and is told once."""
    nodes, server = cluster
    video = sources.file(written(tmp_path / "talk.wav", speech(SAID[0])))
    before = nodes.posts()
    with SteadyLoad(server.url, database, video, backend, in_flight=4) as load:
        until(lambda: [posts > before[replica] for replica, posts in nodes.posts().items()] == [True] * 2, within_s=60)
        assert len(nodes.actors("JobManager")) == 1
        load.finish(within_s=120)
        load.check()


@pytest.mark.full
def test_d3_a_new_head_takes_over(cluster, database, sources, backend, tmp_path):
    """All that the head runs is killed under running jobs: a new head finds app and actors in Redis, 0 jobs lost."""
    redis.require()
    nodes, server = cluster
    video = sources.file(written(tmp_path / "talk.wav", in_a_row(*(speech(name) for name in SAID))))
    with SteadyLoad(server.url, database, video, backend, in_flight=4) as load:
        load.wait(lambda rows: sum(job.progress > 0 for job in rows) > 1, within_s=120)
        killed_at = time.monotonic()
        nodes.restart_head()
        until(nodes.serve_runs, within_s=120)
        ready_at = time.monotonic()
        load.finish(within_s=240)
        resumed_s = load.resumed_s(killed_at, ready_at=ready_at)
        print(f"the new head was ready after {ready_at - killed_at:.1f} s, the jobs went on {resumed_s} s later")
        assert max(resumed_s) < 120
        load.check()
    assert nodes.actors("ServeController") == ["head"]
    assert server.wait(server.start(video, language="en"), within_s=120)["status"] == "completed"


@pytest.mark.full
def test_d3_a_lost_node_loses_no_job(cluster, database, sources, backend, tmp_path):
    """All that a worker node runs is killed, drivers, replicas, perhaps the manager: its jobs go on on other nodes."""
    nodes, server = cluster
    nodes.add("spare", num_cpus=16, num_gpus=2)
    video = sources.file(written(tmp_path / "talk.wav", in_a_row(*(speech(name) for name in SAID))))
    with SteadyLoad(server.url, database, video, backend, in_flight=4) as load:
        load.wait(lambda rows: sum(job.progress > 0 for job in rows) > 1, within_s=120)
        killed_at = time.monotonic()
        nodes.lose("cpu")
        resumed_s = load.all_resumed_s(killed_at, within_s=120)
        print(f"a node was lost, the jobs went on {resumed_s} s later")
        load.finish(within_s=240)
        load.check()


@contextmanager
def held_still(nodes):
    """Holds each recogniser that runs, now and at each call of what it yields, which tells where they run."""
    held = set()

    def hold():
        places = nodes.replicas()["Transcriber"]
        processes = nodes.processes("Transcriber")
        if len(processes) == len(places):
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
                held.add(pid)
        return places

    try:
        hold()
        yield hold
    finally:
        for pid in held:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def fractions(nodes, config):
    """GPUs that the running replicas have taken."""
    parts = {
        part["name"]: part["ray_actor_options"].get("num_gpus", 0) for part in config["applications"][0]["deployments"]
    }
    return sum(parts[name] * len(places) for name, places in nodes.replicas().items())
