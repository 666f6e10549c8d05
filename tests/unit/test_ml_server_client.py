"""The backend's client: what it asks, what it takes, and what it needs."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from ml_server_client import (
    BadCallbackError,
    BusyError,
    Callback,
    ConnectionFailedError,
    ForgedCallbackError,
    InMemory,
    JobFailedError,
    JobStatus,
    MLServer,
    MLServerError,
    NoAnswerError,
    Receiver,
    RefusedError,
)
from ml_server_client import client as client_module
from ml_server_client.client import RERUN_OPTIONS
from ml_server_client.signatures import TOLERANCE_S, key_of, verify
from serve_app.api import schemas
from serve_app.api.errors import ApiError, body
from serve_app.jobs.job import Attempt, Outcome
from serve_app.settings import Settings
from serve_app.storage.database import Database
from tests.support.contract import Completed
from tests.support.edge import edge
from tests.support.fake_ml_server import result_for
from tests.support.jobs import begin
from tests.support.stores import stores

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "whsec_" + base64.b64encode(b"a secret that only the parties know").decode()
OTHER = "whsec_" + base64.b64encode(b"a secret that somebody else knows..").decode()
VIDEO = "https://bucket.example.com/talk.mp4?X-Amz-Signature=1"
URL = "http://ml-server:8080"
RUNNING = {"job_id": "j", "status": "processing", "progress": 40, "message": "Identifying the speakers"}
DONE = RUNNING | {"status": "completed", "progress": 100, "result": result_for(VIDEO)}
FAILED = RUNNING | {"status": "failed", "error_code": "DOWNLOAD_ERROR", "error_message": "no"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(client_module, "PAUSES_S", (0.0, 0.0))


def answering(*answers: httpx.Response | Exception) -> tuple[MLServer, list[httpx.Request]]:
    """A client whose server gives these answers in turn, the last one for ever; and what it was asked."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = answers[min(len(asked), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    return MLServer(URL, callback_base="http://backend:8000", transport=httpx.MockTransport(answer)), asked


def job(state: dict[str, Any], status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=state)


def test_it_needs_httpx_and_pydantic_only():
    """The client brings nothing into a backend's process but what these two bring."""
    program = """
        import sys, httpx, pydantic, pydantic.deprecated.decorator, pydantic.root_model, anyio._backends._asyncio
        before = {name.partition(".")[0] for name in sys.modules}
        import ml_server_client
        after = {name.partition(".")[0] for name in sys.modules} - before
        print(sorted(after - sys.stdlib_module_names))
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    out = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['ml_server_client']"


def test_a_lost_connection_is_asked_again_under_the_same_id():
    """A POST whose line broke is made again: the same job, so nothing runs twice."""
    accepted = job({"job_id": "j", "status": "processing", "message": "", "estimated_time": 3})
    server, asked = answering(httpx.ConnectError("refused"), httpx.ReadError("reset"), accepted)
    assert asyncio.run(server.submit(VIDEO)).estimated_time == 3
    bodies = [json.loads(request.content) for request in asked]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["fastapi_base_url"] == "http://backend:8000"


@pytest.mark.parametrize(("failure", "kind", "code", "times"), [
    (httpx.ConnectError("refused"), ConnectionFailedError, "CONNECTION_ERROR", 3),
    (httpx.ReadTimeout("late"), NoAnswerError, "TIMEOUT_ERROR", 1),
])  # fmt: skip
def test_no_answer_is_told_by_its_kind(failure, kind, code, times):
    """Nobody there, after three tries; or no answer in time, at once: the job may run."""
    server, asked = answering(failure)
    with pytest.raises(kind) as raised:
        asyncio.run(server.submit(VIDEO))
    assert (raised.value.code, len(asked)) == (code, times)


@pytest.mark.parametrize("refusal", ApiError.__subclasses__(), ids=lambda refusal: refusal.code)
def test_every_refusal_of_the_server_is_typed(refusal):
    """Each code arrives as it is; 429 and 503 say when to come back."""
    content = body(refusal.code, "a sentence", "j")
    server, _ = answering(httpx.Response(refusal.status, json=content, headers={"Retry-After": "7"}))
    with pytest.raises(RefusedError, match="a sentence") as raised:
        asyncio.run(server.submit(VIDEO))
    assert (raised.value.code, raised.value.http_status) == (refusal.code, refusal.status)
    assert isinstance(raised.value, BusyError) == (refusal.status in (429, 503))
    if isinstance(raised.value, BusyError):
        assert raised.value.retry_after_s == 7


@pytest.mark.parametrize("page", [b"<html>Bad gateway</html>", b"[]", b'{"error": "text"}', b'{"error": {}}'])
def test_a_proxys_page_gets_the_guides_stand_in(page):
    """Whatever answers, the error is typed."""
    server, _ = answering(httpx.Response(502, content=page))
    with pytest.raises(RefusedError) as raised:
        asyncio.run(server.status("j"))
    assert raised.value.code == "ML_SERVER_ERROR"
    strange, _ = answering(httpx.Response(200, content=page))
    with pytest.raises(MLServerError, match="not the ML Server's"):
        asyncio.run(strange.status("j"))


def test_wait_bears_a_busy_server_and_gives_the_result():
    """Polls through 503 and a lost line until the job has ended."""
    busy = httpx.Response(503, json=body("SERVICE_UNAVAILABLE", "draining", None))
    server, asked = answering(job(RUNNING), busy, httpx.ReadTimeout("late"), job(RUNNING), job(DONE))
    result = asyncio.run(server.wait("j", poll_s=0))
    assert len(asked) == 5
    assert result.segments[0].words[0].pitch_hz == 210.0
    assert result.segments[1].speaker.speaker_id == "SPEAKER_01"


def test_wait_tells_a_failure_and_gives_up(monkeypatch):
    """A failed job raises its code; a server that stays away, and a time that is over, end the waiting."""
    server, _ = answering(job(FAILED))
    with pytest.raises(JobFailedError, match="no") as raised:
        asyncio.run(server.wait("j", poll_s=0))
    assert raised.value.code == "DOWNLOAD_ERROR"
    server, _ = answering(job(RUNNING))
    with pytest.raises(TimeoutError):
        asyncio.run(server.wait("j", poll_s=0.001, timeout_s=0.02))
    monkeypatch.setattr(client_module, "PATIENCE_S", 0.01)
    server, _ = answering(httpx.ConnectError("away"))
    with pytest.raises(ConnectionFailedError):
        asyncio.run(server.wait("j", poll_s=0.001))


def test_cancel_spares_an_ended_job_and_is_asked_once():
    """A verb that the server refuses for an ended job; sent once: a second one would be told of the first."""
    refusal = {"error": {"code": "JOB_CONFLICT", "message": "no", "job_id": "j"}, "message": "no"}
    server, asked = answering(httpx.Response(409, json=refusal))
    assert asyncio.run(server.cancel("j")) is False
    server, asked = answering(job(RUNNING, 202))
    assert asyncio.run(server.cancel("j")) is True
    server, asked = answering(httpx.ReadError("reset"))
    with pytest.raises(ConnectionFailedError):
        asyncio.run(server.cancel("j"))
    assert [(request.method, request.url.path) for request in asked] == [("POST", "/api/upload-video/jobs/j/cancel")]
    server, _ = answering(httpx.Response(404, json=refusal | {"error": refusal["error"] | {"code": "JOB_NOT_FOUND"}}))
    with pytest.raises(RefusedError):
        asyncio.run(server.cancel("j"))


def test_settings_come_from_the_parties_names():
    """MODEL_SERVER_URL before ml_api_server_url; FASTAPI_BASE_URL, ML_API_TIMEOUT and ML_API_KEY."""
    server = MLServer.from_environment(
        {
            "MODEL_SERVER_URL": "http://new:1",
            "ml_api_server_url": "http://old:1",
            "ML_API_TIMEOUT": "5",
            "ML_API_KEY": "k",
        }
    )
    assert str(server._http.base_url) == "http://new:1"
    assert server._http.timeout.read == 5
    assert server._http.headers["Authorization"] == "Bearer k"
    assert server._callback_base is None
    assert MLServer.from_environment({})._http.timeout.read == 300


async def test_the_real_edge_and_the_client_agree(tmp_path):
    """Over the server's own routes: accepted, repeated, in conflict, looked up, named, cancelled, deleted."""
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    store = stores(database, queue_limit=5, running_limit=2)
    app = edge(Settings(profile="local"), database, store)
    server = MLServer("http://localhost", transport=httpx.ASGITransport(app))
    async with server:
        assert (await server.submit(VIDEO, job_id="j")).status == "processing"
        assert (await server.submit(VIDEO + "0", job_id="j")).status == "accepted"  # a new signature, the same job
        with pytest.raises(RefusedError) as conflict:
            await server.submit(VIDEO, job_id="j", language="en")
        assert conflict.value.code == "JOB_CONFLICT"
        assert (await server.status("j")).queue_position == 1
        assert await server.healthy()
        store.queue.admit_jobs()
        attempt = begin(store, "j")
        result = json.dumps(result_for(VIDEO)).encode()
        store.attempts.finish_job(Attempt.of(attempt), Outcome(result=result))
        assert (await server.wait("j")).model_dump(mode="json", exclude_unset=True) == result_for(VIDEO)
        assert (await server.name_speakers("j", {"SPEAKER_01": "Anna"})).speakers == {"SPEAKER_01": "Anna"}
        assert (await server.status("j")).speakers == {"SPEAKER_01": "Anna"}
        assert (await server.name_speakers("j", {})).speakers == (await server.status("j")).speakers == {}
        assert await server.cancel("j") is False
        await server.submit(VIDEO, job_id="k")
        assert await server.cancel("k") is True
        await server.delete("j")
        with pytest.raises(RefusedError) as gone:
            await server.status("j")
        assert (gone.value.code, gone.value.http_status) == ("JOB_NOT_FOUND", 404)
    database.close()


def test_the_models_know_every_field_of_the_contract():
    """What the server may send is typed; what a later one adds is kept."""
    assert set(schemas.StatusResponse.model_fields) <= set(JobStatus.model_fields)
    pairs = [(Completed, Callback)]
    for strict, ours in pairs:
        assert set(strict.model_fields) <= set(ours.model_fields)
        pairs += [
            (theirs, mine)
            for name in strict.model_fields
            for theirs in models_of(strict, name)
            for mine in models_of(ours, name)
        ]
    assert {strict.__name__ for strict, _ in pairs} == {
        "Completed", "Result", "Metadata", "WarningObject", "SegmentObject", "Speaker", "Word", "Emotion", "Quality",
    }  # fmt: skip
    assert Callback.model_validate(RUNNING | {"new": 1}).model_dump(exclude_unset=True)["new"] == 1


def models_of(model: Any, name: str) -> list[Any]:
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [each for each in candidates if hasattr(each, "model_fields")]


# Callbacks


def signed(
    content: dict[str, Any], *secrets: str, message_id: str = "msg_1", sequence: int = 1
) -> tuple[bytes, dict[str, str]]:
    """As the server signs: by the specification's own library."""
    raw = json.dumps(content, ensure_ascii=False).encode()
    now = datetime.now(UTC)
    headers = {"Webhook-Id": message_id, "Webhook-Timestamp": str(int(now.timestamp())), "X-ML-Sequence": str(sequence)}
    if secrets:
        headers["Webhook-Signature"] = " ".join(Webhook(each).sign(message_id, now, raw.decode()) for each in secrets)
    return raw, headers


@settings(deadline=None)
@given(
    raw=st.text().map(str.encode),
    message_id=st.text(st.characters(codec="ascii"), min_size=1),
    at=st.integers(0, 2**33),
)
def test_it_verifies_what_the_specifications_library_signs(raw, message_id, at):
    """Any body, id and time: our few lines agree with standardwebhooks, and one byte more is refused."""
    moment = datetime.fromtimestamp(at, UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": Webhook(SECRET).sign(message_id, moment, raw.decode()),
    }
    verify(raw, headers, [key_of(SECRET)], now_s=at)
    with pytest.raises(ForgedCallbackError):
        verify(raw + b" ", headers, [key_of(SECRET)], now_s=at)
    with pytest.raises(ForgedCallbackError):
        verify(raw, headers, [key_of(OTHER)], now_s=at)
    with pytest.raises(ForgedCallbackError):
        verify(raw, headers | {"webhook-id": message_id + "1"}, [key_of(SECRET)], now_s=at)
    for late in (TOLERANCE_S + 1, -TOLERANCE_S - 1):
        with pytest.raises(ForgedCallbackError):
            verify(raw, headers, [key_of(SECRET)], now_s=at + late)


@pytest.mark.parametrize("change", [
    {"Webhook-Signature": ""},
    {"Webhook-Signature": "v1,"},
    {"Webhook-Signature": "nonsense é"},
    {"Webhook-Timestamp": "soon"},
    {"Webhook-Timestamp": "²"},
    {"Webhook-Timestamp": "1" * 5000},
])  # fmt: skip
def test_a_broken_signature_is_refused_whatever_it_is(change):
    """401 for every shape of it, and the handler hears nothing."""
    heard: list[Callback] = []
    receiver = Receiver(keeping(heard), secrets=[SECRET])
    raw, headers = signed(RUNNING, SECRET)
    with pytest.raises(ForgedCallbackError) as raised:
        asyncio.run(receiver.receive(raw, headers | change))
    assert raised.value.http_status == 401
    assert heard == []


def test_both_secrets_are_good_during_a_rotation():
    """The server signs with the old and the new one, and the receiver may know either, or both."""
    for known, used in (([SECRET], [OTHER, SECRET]), ([OTHER, SECRET], [SECRET]), ([OTHER], [OTHER, SECRET])):
        receiver = Receiver(keeping([]), secrets=known)
        assert asyncio.run(receiver.receive(*signed(RUNNING, *used))) == "applied"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!"])
def test_an_empty_secret_is_no_secret(secret):
    """A variable that is not set must not make an endpoint that anybody can sign for."""
    with pytest.raises(ValueError, match="webhook secret"):
        Receiver(keeping([]), secrets=[secret])


def test_a_secret_is_never_forgotten_by_accident(monkeypatch):
    """Without secrets they come from ML_WEBHOOK_SECRET; without that, there is no endpoint."""
    monkeypatch.delenv("ML_WEBHOOK_SECRET", raising=False)
    with pytest.raises(ValueError, match="ML_WEBHOOK_SECRET is not set"):
        Receiver(keeping([]))
    monkeypatch.setenv("ML_WEBHOOK_SECRET", f"{OTHER} {SECRET}")
    receiver = Receiver(keeping([]))
    assert asyncio.run(receiver.receive(*signed(RUNNING, SECRET))) == "applied"
    with pytest.raises(ForgedCallbackError):
        asyncio.run(receiver.receive(*signed(RUNNING, message_id="msg_2", sequence=2)))


@pytest.mark.parametrize(("content", "dropped"), [
    ({"status": "processing"}, ""),
    (RUNNING | {"progress": 101}, ""),
    (RUNNING, "X-ML-Sequence"),
    (RUNNING, "Webhook-Id"),
])  # fmt: skip
def test_what_is_no_callback_is_a_400(content, dropped):
    """Also where a proxy drops the headers: told, and not guessed."""
    raw, headers = signed(content)
    headers.pop(dropped, None)
    with pytest.raises(BadCallbackError):
        asyncio.run(Receiver(keeping([]), secrets=()).receive(raw, headers))


@settings(deadline=None)
@given(deliveries=st.lists(st.integers(1, 8), min_size=1, max_size=30))
def test_the_newest_callback_wins_in_any_order(deliveries: list[int]):
    """Duplicates and late arrivals are dropped, whatever the order."""
    heard: list[Callback] = []
    receiver = Receiver(keeping(heard), secrets=[SECRET])

    async def deliver() -> None:
        seen: set[int] = set()
        for number in deliveries:
            content = RUNNING | {"progress": number}
            outcome = await receiver.receive(*signed(content, SECRET, message_id=f"m{number}", sequence=number))
            expected = "duplicate" if number in seen else "stale" if number < max(seen, default=0) else "applied"
            assert outcome == expected
            seen |= {number} if outcome == "applied" else set()

    asyncio.run(deliver())
    rising = [callback.progress for callback in heard]
    assert rising == sorted(set(rising))
    assert rising[-1] == max(deliveries)


async def test_a_replayed_callback_with_a_raised_number_blocks_nothing():
    """X-ML-Sequence is not signed; the id is: an old callback under a new number is a duplicate."""
    receiver = Receiver(keeping([]), secrets=[SECRET])
    raw, headers = signed(RUNNING, SECRET)
    end = signed(FAILED, SECRET, message_id="msg_2", sequence=2)
    replayed = headers | {"X-ML-Sequence": "999999"}
    assert [await receiver.receive(*each) for each in ((raw, headers), (raw, replayed), end)] == [
        "applied",
        "duplicate",
        "applied",
    ]


def test_a_handler_that_fails_gets_the_callback_again():
    """A database that is away must not make the retry a duplicate: that would lose the result."""
    heard: list[Callback] = []
    away = [OSError("the database is away")]

    async def handle(callback: Callback) -> None:
        if away:
            raise away.pop()
        heard.append(callback)

    receiver = Receiver(handle, secrets=())
    with pytest.raises(OSError, match="away"):
        asyncio.run(receiver.receive(*signed(FAILED)))
    assert asyncio.run(receiver.receive(*signed(FAILED))) == "applied"
    assert [callback.error_code for callback in heard] == ["DOWNLOAD_ERROR"]


async def test_a_slow_handler_of_progress_does_not_overtake_the_end():
    """The server gives up a progress POST for the end; what the handler does then stays in order."""
    order: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(callback: Callback) -> None:
        begun.set()
        if callback.status == "processing":
            await go_on.wait()
        order.append(callback.status)

    receiver = Receiver(handle, secrets=())
    progress = asyncio.create_task(receiver.receive(*signed(RUNNING)))
    await begun.wait()
    end = asyncio.create_task(receiver.receive(*signed(FAILED, message_id="msg_2", sequence=2)))
    await asyncio.sleep(0.05)
    go_on.set()
    assert [await progress, await end] == ["applied", "applied"]
    assert order == ["processing", "failed"]


async def test_the_memory_is_bounded():
    """The oldest entries are forgotten; locks of jobs that nobody uses, too."""
    memory = InMemory(jobs=3, messages=4)
    for number in range(10):
        async with memory.turn(f"j{number}", sequence=1, message_id=f"m{number}") as outcome:
            assert outcome == "applied"
    assert list(memory._newest) == ["j7", "j8", "j9"]
    assert list(memory._seen) == ["m6", "m7", "m8", "m9"]
    assert not memory._locks


def keeping(heard: list[Callback]) -> Callable[[Callback], Any]:
    async def handle(callback: Callback) -> None:
        heard.append(callback)

    return handle


async def test_arguments_that_cannot_be_meant_are_refused():
    """A text in place of a list would be sent letter by letter, and an unknown option of a rerun would be ignored."""
    async with MLServer("http://127.0.0.1:9") as client:
        for wrong in ({"vocabulary": "세종대로"}, {"languages": "ko"}):
            with pytest.raises(TypeError, match="are lists"):
                await client.submit("http://127.0.0.1:9/a.mp4", **wrong)
        with pytest.raises(TypeError, match="num_speaker"):
            await client.rerun("a", num_speaker=3)
    assert set(schemas.RerunRequest.model_fields) == RERUN_OPTIONS
