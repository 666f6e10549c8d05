"""R1, S2 on the server that runs: who can reach which of its ports, what a stranger gets there, and who is told."""

from __future__ import annotations

import json
import os
import pickle
import re
import time
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest

from serve_app.cli.child_process import session_members
from serve_app.lean_imports import HOOK_VARIABLE
from serve_app.orchestration.spare_processes import RELEASE_VARIABLE
from tests.support import servers
from tests.support.leaks import Watch

JOBS = "/api/upload-video/jobs"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""As Linux writes 127.0.0.1, ::ffff:127.0.0.1 and ::1."""


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.fixture(scope="module")
def dashboard(server):
    """The Ray dashboard's URL."""
    return re.search(r"Ray dashboard (\S+)", (server.state_dir / "up.log").read_text())[1]


def listeners(processes: list[int]) -> list[tuple[str, int, str]]:
    """Address, port and title of each listening socket of these processes."""
    owners = {}
    for pid in processes:
        with suppress(OSError):  # it ended meanwhile
            title = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    owners[str(file.readlink())] = title.strip()
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            owner = owners.get(f"socket:[{fields[9]}]")
            if fields[3] == "0A" and owner is not None:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16), owner))
    return found


def test_r1_all_but_the_replicas_own_ports_are_on_loopback(server, tmp_path):
    """R1: API, dashboard, GCS, raylet, workers: loopback. Serve's port per replica wants the token before all else."""
    found = listeners(session_members(server.process._process.pid))
    assert len(found) > 10
    wide = [(port, owner) for address, port, owner in found if address not in LOOPBACK]
    assert [owner for _, owner in wide if not owner.startswith("ray::ServeReplica:")] == []
    for port, _ in wide:
        bomb = ASGIRequest(pickled_request_metadata=pickle.dumps(Bomb(tmp_path / f"hit-{port}")))
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(bomb.SerializeToString(), timeout=20)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert wide
    assert list(tmp_path.iterdir()) == []


def test_r1_the_dashboard_wants_the_token(server, dashboard):
    """R1: on loopback, 401 without our token, which nobody else can read."""
    assert dashboard.startswith("http://127.0.0.1:")
    token = server.state_dir / "ray-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert server.state_dir.stat().st_mode & 0o077 == 0
    for header in ({}, {"authorization": "Bearer " + "0" * 64}):
        answer = httpx.get(f"{dashboard}/api/v0/actors", headers=header, trust_env=False, timeout=20)
        assert answer.status_code in {401, 403}


def test_r1_a_request_names_no_actor_but_its_own_job(server, dashboard, sources):
    """R1: ids that would name something else, a runtime_env and Serve's own headers: refused, or of no effect."""
    headers = {"authorization": f"Bearer {(server.state_dir / 'ray-token').read_text()}"}
    strange = {"x-request-timeout-seconds": "nan", "serve_multiplexed_model_id": "../x", "x-session-id": "a\tb"}
    for job_id in ("job-manager", "a#2", "../a", "a\n", "SERVE_CONTROLLER_ACTOR/x"):
        server.post(sources.serve(servers.hanging), job_id=job_id, runtime_env={"pip": ["evil"]}, headers=strange)
    job_id = server.start(sources.serve(servers.hanging), runtime_env={"pip": ["evil"]})
    deadline = time.monotonic() + 60
    while True:
        listing = httpx.get(
            f"{dashboard}/api/v0/actors",
            params={"limit": 500, "detail": True},
            headers=headers,
            trust_env=False,
            timeout=30,
        ).json()
        actors = {actor["name"]: actor for actor in listing["data"]["result"]["result"]}
        if server.http.get(f"/api/upload-video/jobs/{job_id}/timeline").json()["actor"] in actors:
            break
        assert time.monotonic() < deadline, sorted(actors)
        time.sleep(0.3)
    ours = {name for name, actor in actors.items() if actor["ray_namespace"] == "ml-server"}
    assert all(name == "job-manager" or re.fullmatch(r"job:[0-9a-f]{16}", name) for name in ours)
    for name, actor in actors.items():
        environment = json.loads(actor["serialized_runtime_env"] or "{}")
        variables = environment.pop("env_vars", {})
        assert environment == {}
        assert set(variables) == ({HOOK_VARIABLE, RELEASE_VARIABLE} if (name or "").startswith("job:") else set())
    for name in (job_id, "job-manager"):
        server.cancel(name)


def test_r1_a_pickle_is_no_request(server, tmp_path):
    """R1: a body that is a pickle is read as JSON, which it is not."""
    bomb = pickle.dumps(Bomb(tmp_path / "hit"))
    for kind in ("application/json", "application/octet-stream", "application/x-python-pickle"):
        answer = server.http.post("/api/upload-video/process-video", content=bomb, headers={"content-type": kind})
        assert answer.status_code == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forwarded", [[], ["127.0.0.1"], ["127.0.0.1, 127.0.0.1"], ["127.0.0.1:80", "unknown"]])
def test_r1_a_client_from_elsewhere_is_refused(server, forwarded):
    """R1: through Serve's real proxy the peer is seen, not what a header says; /health is open to all."""
    headers = [("x-forwarded-for", line) for line in forwarded]
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), base_url=server.url) as stranger:
        for path in (JOBS, "/docs", "/openapi.json", "/api/upload-video/status/a"):
            answer = stranger.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "CLIENT_NOT_ALLOWED")
        assert stranger.get("/health", headers=headers).status_code == 200
    assert server.http.get(JOBS).status_code == 200


def test_m7_the_scan_sees_what_a_server_shows(server):
    """M7: the suite's scan finds the logs of Ray and the metrics of a server that runs, and nothing in them."""
    watch = Watch()
    watch.running(server.state_dir)
    print(watch.summary())
    assert watch.found == []
    assert watch.looked_at["log of Ray"] > 20
    assert watch.looked_at["metric"] >= 1


def test_s2_no_process_reports_home(server, canary):
    """S2: usage statistics and telemetry are off for Ray and all that it starts; nobody called the hub or by https.

    A process that sets its title writes over the environment that Linux shows: what is left must not say otherwise.
    """
    off = {"RAY_USAGE_STATS_ENABLED": "0", "PYANNOTE_METRICS_ENABLED": "0"}
    off |= {"HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
    leader = server.process._process.pid
    whole = set()
    for pid in session_members(leader):
        with suppress(OSError):  # it ended meanwhile
            lines = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
            shown = {name: value for name, _, value in (line.partition("=") for line in lines) if name in off}
            title = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            if pid != leader:  # which has set them for all others, in its own memory
                assert shown.items() <= off.items(), title
                whole |= {Path(title).name} if shown == off else set()
    assert {"raylet", "gcs_server"} <= whole
    assert canary[1] == []
