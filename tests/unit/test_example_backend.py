from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.backend import app as plain
from examples.backend import client_app
from examples.backend.app import MAX_CALLBACK_BYTES
from examples.backend.jobs import MAX_JOBS, Callback, JobStore
from examples.backend.ml_video import error_of
from examples.backend.settings import Settings
from serve_app.cli.child_process import free_port
from tests.support.fake_ml_server import Script, result_for
from tests.support.fake_ml_server import create_app as create_fake
from tests.support.live_server import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

SECRET = "whsec_" + base64.b64encode(b"a secret that only the parties know").decode()
PROGRESS = {"job_id": "job-1", "status": "processing", "progress": 30, "message": "Detecting speech"}
RESULT_PATH = "/api/upload-video/result"


@pytest.fixture(params=[plain, client_app], ids=["plain", "client"])
def create_app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], FastAPI]:
    """Both variants keep the same promises."""
    monkeypatch.setattr("ml_server_client.client.PAUSES_S", (0.01,))
    return request.param.create_app


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def headers_of(sequence: int, **more: str) -> dict[str, str]:
    return {"webhook-id": f"msg_{sequence}", "X-ML-Sequence": str(sequence), **more}


def wait_for_end(http: httpx.Client, backend_url: str, job_id: str) -> dict[str, Any]:
    """Poll as a frontend does."""
    while True:
        state: dict[str, Any] = http.get(f"{backend_url}/api/v1/ml/job-status/{job_id}").json()
        if state["status"] in ("completed", "failed"):
            return state
        time.sleep(0.01)


def backend_for(ml_url: str, base_url: str = "http://127.0.0.1:1", **more: Any) -> Settings:
    return Settings(model_server_url=ml_url, fastapi_base_url=base_url, **more)


def test_a_request_carries_what_the_guide_says_and_ends_with_the_result(
    http: httpx.Client, create_app: Callable[..., FastAPI]
) -> None:
    """A frontend's request reaches the ML Server with all parameters; callbacks bring progress and the result."""
    script = Script(twice=True)
    port = free_port()
    with serving(create_fake(script)) as ml_url:
        settings = backend_for(ml_url, f"http://127.0.0.1:{port}", video_base_url=f"{ml_url}/health?")
        with serving(create_app(settings), port=port) as backend_url:
            answer = http.post(
                f"{backend_url}/api/upload-video/request-process", json={"fileKey": "a b/é.mp4", "language": "en"}
            )
            state = wait_for_end(http, backend_url, answer.json()["job_id"])
    assert answer.status_code == 200
    assert script.requests == [
        {
            "job_id": state["job_id"],
            "video_url": f"{ml_url}/health?/a%20b/%C3%A9.mp4",
            "fastapi_base_url": f"http://127.0.0.1:{port}",
            "language": "en",
            "enable_gpu": True,
            "emotion_detection": True,
            "max_workers": 4,
        }
    ]
    assert state["status"] == "completed"
    assert state["progress"] == 100
    assert state["result"] == result_for(script.requests[0]["video_url"])
    assert state["status_url"] == f"/api/upload-video/status/{state['job_id']}"
    outcomes = [answer["status"] for answer in script.callback_answers]
    assert outcomes[:5] == ["applied", "duplicate", "applied", "duplicate", "duplicate"]


def test_a_refusal_is_told_with_the_servers_code_and_message(
    http: httpx.Client, create_app: Callable[..., FastAPI]
) -> None:
    """The contract's error body ends in the job as the guide reads it: `error.code` and the top-level `message`."""
    script = Script(refusal=(503, "INSUFFICIENT_RESOURCES", "The queue is full"))
    with serving(create_fake(script)) as ml_url, serving(create_app(backend_for(ml_url))) as backend_url:
        answer = http.post(f"{backend_url}/api/upload-video/request-process", json={"fileKey": "a.mp4"})
        state = http.get(f"{backend_url}/api/v1/ml/job-status/{answer.json()['job_id']}").json()
    assert answer.status_code == 502
    assert (state["status"], state["error_code"]) == ("failed", "INSUFFICIENT_RESOURCES")
    assert state["error_message"].endswith("The queue is full")


@pytest.mark.parametrize("body", [{}, {"error": "text"}, {"error": {}}, {"error": None, "message": None}])
def test_an_answer_that_is_no_contract_error_still_gets_a_code(body: dict[str, Any]) -> None:
    """A proxy's answer gives the guide's stand-ins, never an exception."""
    assert error_of(body) == ("ML_SERVER_ERROR", "Unknown error")


def test_an_unreachable_server_is_a_connection_error(http: httpx.Client, create_app: Callable[..., FastAPI]) -> None:
    """Nobody listening: CONNECTION_ERROR."""
    with serving(create_app(backend_for("http://127.0.0.1:1"))) as backend_url:
        answer = http.post(f"{backend_url}/api/upload-video/request-process", json={"fileKey": "a.mp4"})
    assert (answer.status_code, answer.json()["error_code"]) == (502, "CONNECTION_ERROR")


def test_a_silent_server_is_a_timeout_and_its_callbacks_still_count(
    http: httpx.Client, create_app: Callable[..., FastAPI]
) -> None:
    """After ML_API_TIMEOUT the job is failed with TIMEOUT_ERROR; a callback that comes all the same revives it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = backend_for(f"http://127.0.0.1:{silent.getsockname()[1]}", ml_api_timeout_s=0.1)
        with serving(create_app(settings)) as backend_url:
            answer = http.post(f"{backend_url}/api/upload-video/request-process", json={"fileKey": "a.mp4"})
            job_id = answer.json()["job_id"]
            http.post(backend_url + RESULT_PATH, json=PROGRESS | {"job_id": job_id}, headers=headers_of(1))
            state = http.get(f"{backend_url}/api/v1/ml/job-status/{job_id}").json()
    assert answer.json()["error_code"] == "TIMEOUT_ERROR"
    assert (state["status"], state["progress"], state["error_code"]) == ("processing", 30, None)


def test_callbacks_faster_than_the_answer_are_not_undone(
    http: httpx.Client, create_app: Callable[..., FastAPI]
) -> None:
    """The answer `processing` that arrives after the final callback leaves the job failed, as it ended."""
    script = Script(callbacks_before_answer=True, error=("TRANSCRIPTION_ERROR", "Speech recognition failed"))
    port = free_port()
    with serving(create_fake(script)) as ml_url:
        settings = backend_for(ml_url, f"http://127.0.0.1:{port}", video_base_url=f"{ml_url}/health?")
        with serving(create_app(settings), port=port) as backend_url:
            answer = http.post(f"{backend_url}/api/upload-video/request-process", json={"fileKey": "a.mp4"})
    job = answer.json()
    assert answer.status_code == 200
    assert (job["status"], job["progress"], job["error_code"]) == ("failed", 95, "TRANSCRIPTION_ERROR")
    assert job["status_url"] == f"/api/upload-video/status/{job['job_id']}"


@pytest.mark.parametrize("path", [RESULT_PATH, "/api/v1/ml/ml-results"])
def test_both_contract_versions_callbacks_are_taken(http: httpx.Client, path: str) -> None:
    """v1.1 and v1.0 paths; a job that this backend never asked for (the v1.0 document's curl test) is kept too."""
    failed = {"job_id": "test-123", "status": "failed", "progress": 45, "error_message": "no", "error_code": "X"}
    with serving(plain.create_app(backend_for("http://127.0.0.1:1"))) as backend_url:
        assert http.post(backend_url + path, json=failed).status_code == 200
        late = http.post(backend_url + path, json=PROGRESS | {"job_id": "test-123"})
        state = http.get(f"{backend_url}/api/v1/ml/job-status/test-123").json()
        unknown = http.get(f"{backend_url}/api/v1/ml/job-status/other")
    assert late.json() == {"status": "stale"}
    assert (state["status"], state["progress"], state["error_code"], state["error_message"]) == (
        "failed",
        45,
        "X",
        "no",
    )
    assert unknown.status_code == 404


@settings(deadline=None)
@given(
    deliveries=st.lists(st.integers(1, 8), min_size=1, max_size=30),
    statuses=st.lists(st.sampled_from(["processing", "failed", "completed"]), min_size=8, max_size=8),
)
def test_the_newest_callback_wins_in_any_order(deliveries: list[int], statuses: list[str]) -> None:
    """Retries, duplicates and late arrivals in any order leave the state of the highest sequence delivered."""
    store = JobStore()
    newest = 0
    for sequence in deliveries:
        callback = Callback.model_validate({"job_id": "j", "status": statuses[sequence - 1], "progress": sequence})
        outcome = store.apply(callback, webhook_id=f"m{sequence}", sequence=sequence)
        assert (outcome == "applied") == (sequence > newest)
        newest = max(newest, sequence)
        job = store.open("j")
        assert (job.status, job.progress) == (statuses[newest - 1], newest)


def test_the_store_is_bounded() -> None:
    """The oldest job is forgotten when there are too many."""
    store = JobStore()
    for number in range(MAX_JOBS + 1):
        store.open(str(number))
    assert store.get("0") is None
    assert store.get("1") is not None
    assert store.get(str(MAX_JOBS)) is not None


def signature(body: bytes, *, message_id: str, timestamp: int) -> str:
    """Standard Webhooks 1.0, by hand."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Seoul"])
def time_zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process lives in this zone during the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_signatures_are_checked_in_any_time_zone(
    http: httpx.Client, create_app: Callable[..., FastAPI], time_zone: str
) -> None:
    """With a secret, only fresh callbacks signed over their exact bytes count; during rotation one of two suffices."""
    body = json.dumps(PROGRESS, ensure_ascii=False, separators=(",", " : ")).encode()
    now = int(time.time())
    good = signature(body, message_id="msg_1", timestamp=now)
    old = signature(body, message_id="msg_1", timestamp=now - 3600)
    cases = [
        ({"webhook-timestamp": str(now)}, body, 401),
        ({"webhook-timestamp": str(now), "webhook-signature": "nonsense"}, body, 401),
        ({"webhook-timestamp": str(now), "webhook-signature": good}, body + b" ", 401),
        ({"webhook-timestamp": str(now - 3600), "webhook-signature": old}, body, 401),
        ({"webhook-timestamp": str(now), "webhook-signature": f"v1,{'A' * 43}= {good}"}, body, 200),
    ]
    settings = backend_for("http://127.0.0.1:1", webhook_secret=SECRET)
    with serving(create_app(settings)) as backend_url:
        for headers, sent, expected in cases:
            answer = http.post(backend_url + RESULT_PATH, content=sent, headers=headers_of(1, **headers))
            assert answer.status_code == expected, headers


def test_a_body_of_50_mb_is_taken_and_one_byte_more_is_not(
    http: httpx.Client, create_app: Callable[..., FastAPI]
) -> None:
    """The contract's limit, exactly; a malformed body is a 400."""
    frame = json.dumps(PROGRESS | {"message": ""})
    full = json.dumps(PROGRESS | {"message": "x" * (MAX_CALLBACK_BYTES - len(frame))}).encode()
    assert len(full) == MAX_CALLBACK_BYTES
    with serving(create_app(backend_for("http://127.0.0.1:1"))) as backend_url:
        assert http.post(backend_url + RESULT_PATH, content=full, headers=headers_of(1)).status_code == 200
        assert http.post(backend_url + RESULT_PATH, content=full + b" ", headers=headers_of(2)).status_code == 413
        assert http.post(backend_url + RESULT_PATH, content=b"{", headers=headers_of(3)).status_code == 400


def test_settings_come_from_the_names_the_parties_use() -> None:
    """MODEL_SERVER_URL goes before ml_api_server_url; ML_API_TIMEOUT is 300 by default."""
    old = Settings.from_environment({"ml_api_server_url": "http://old:8080/"})
    both = Settings.from_environment(
        {"ml_api_server_url": "http://old:8080", "MODEL_SERVER_URL": "http://new:8080", "ML_API_TIMEOUT": "5"}
    )
    assert (old.model_server_url, old.ml_api_timeout_s) == ("http://old:8080", 300)
    assert (both.model_server_url, both.ml_api_timeout_s) == ("http://new:8080", 5)
