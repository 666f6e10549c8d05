"""serve_config.yaml for real: its graph and replicas on fake GPUs, with keys, contract 1.0, English, a small queue."""

from __future__ import annotations

import hashlib
import time

import pytest

from tests.support import servers
from tests.support.process import ROOT, running_server

KEY = "a-key-for-this-test"
HEALTH_AGE_S = 2
"""Health may be half a second old, at either replica."""
LOOPBACK = '["127.0.0.0/8", "::1/128"]'


@pytest.fixture(scope="module")
def server():
    environment = {
        "ML_SERVER_PROFILE": "local",
        "ML_SERVER_EXTRACTOR__NET__SCHEMES": '["http", "https"]',
        "ML_SERVER_EXTRACTOR__NET__PORTS": "*",
        "ML_SERVER_EXTRACTOR__NET__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__ORIGINS": '["http://127.0.0.1:*"]',
        "ML_SERVER_CONTRACT_VERSION": "1.0",
        "ML_SERVER_LOCALE": "en",
        "ML_SERVER_HEARTBEAT_S": "2",
        "ML_SERVER_LIMITS__RUNNING_JOBS": "1",
        "ML_SERVER_LIMITS__QUEUED_JOBS": "2",
        "ML_SERVER_LIMITS__PREFETCHES": "0",
        "ML_SERVER_AUTH__MODE": "keys",
        "ML_SERVER_AUTH__KEY_HASHES": f'["{hashlib.sha256(KEY.encode()).hexdigest()}"]',
    }
    config = str(ROOT / "serve_config.yaml")
    arguments = ("--config", config, "--host", "127.0.0.1", "--num-gpus", "1", "--num-cpus", "8")
    with running_server(*arguments, environment=environment, api_key=KEY) as server:
        yield server


def test_the_old_contract_end_to_end(server, sources, backend, short):
    """Contract 1.0: `accepted`, no status_url, callbacks to the old path, English messages, a result."""
    answer = server.post(sources.file(short), fastapi_base_url=backend.url)
    assert answer.json()["status"] == "accepted"
    assert "status_url" not in answer.json()
    end = backend.wait_end(answer.json()["job_id"], within_s=120)
    assert end.path == "/api/v1/ml/ml-results"
    assert end.body["message"] == "Video processing completed"
    assert end.body["result"]["segments"]


def test_a_key_is_wanted(server):
    """auth: keys over the wire: 401 in the contract's form without one, /health open."""
    bare = server.http.get("/api/upload-video/jobs", headers={"authorization": ""})
    assert (bare.status_code, bare.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert server.http.get("/health", headers={"authorization": ""}).status_code == 200


def test_the_queue(server, sources, backend):
    """One runs, two wait in order and are told so, the next gets 503; places fall as those before end."""
    slow = sources.serve(servers.dripping())
    running, second, third = (server.start(slow, job_id=f"queue-{i}", fastapi_base_url=backend.url) for i in range(3))
    server.wait(running, "processing")
    assert [server.status(job_id)["queue_position"] for job_id in (second, third)] == [1, 2]
    refused = server.post(slow)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert int(refused.headers["retry-after"]) >= 1
    deadline = time.monotonic() + HEALTH_AGE_S
    while (health := server.http.get("/health")).json()["accepting"]:
        assert time.monotonic() < deadline
    assert health.status_code == 200
    waiting = backend.wait(third, lambda came: len(came) >= 2, within_s=15)
    assert {(got.body["status"], got.body["progress"]) for got in waiting} == {("processing", 0)}
    server.cancel(running)
    server.wait(second, "processing", within_s=15)
    assert server.status(third)["queue_position"] == 1
    assert server.cancel(third).json()["status"] == "failed"
    assert backend.wait_end(third, within_s=10).body["error_code"] == "CANCELLED"
    server.cancel(second)
    backend.wait_end(second, within_s=15)
    deadline = time.monotonic() + 10
    while server.http.get("/health").json()["jobs"]["running"]:
        assert time.monotonic() < deadline
