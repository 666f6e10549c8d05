from __future__ import annotations

import hashlib
import json

import pytest
from fastapi.testclient import TestClient

from deployments.errors import CancelledJobError
from serve_app.api import service as service_module
from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.api.submissions import fingerprint
from serve_app.jobs.job import Attempt, JobOptions, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.settings import Settings
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.database import Database
from serve_app.storage.outbox import Outbox
from tests.support.fake_ml_server import result_for
from tests.support.jobs import DONE, begin
from tests.support.stores import set_draining, stores

POST = "/api/upload-video/process-video"
LOCAL = {
    "profile": "local",
    "extractor": {"net": {"schemes": ["http", "https"], "ports": "*", "networks": ["127.0.0.0/8"]}},
    "callbacks": {"origins": ["http://127.0.0.1:*"], "networks": ["127.0.0.0/8"]},
}
VIDEO = "http://127.0.0.1:9000/videos/a%20b.mp4?X-Amz-Signature=secret"
RESULT = {"text": "hi", "segments": [], "duration": 1.0}


class Signals:
    """The rest of the server, standing still."""

    def __init__(self) -> None:
        self.pokes = 0
        self.discarded: list[str] = []
        self.broken: list[str] = []

    def wake(self) -> None:
        self.pokes += 1

    def discard(self, job_id: str) -> None:
        self.discarded.append(job_id)

    def is_managed(self) -> bool:
        """By a manager of this release."""
        return True

    def failing(self) -> list[str]:
        return self.broken


class Edge:
    """The HTTP edge over a real store, with nobody working on the jobs but the test."""

    def __init__(self, folder, **overrides) -> None:
        self.settings = Settings(**{**LOCAL, **overrides})
        self.database = Database(f"sqlite:///{folder / 'jobs.db'}")
        self.database.create()
        limits = self.settings.limits
        self.store = stores(
            self.database,
            queue_limit=limits.queued_jobs,
            running_limit=limits.running_jobs,
            locale=self.settings.locale,
        )
        self.signals = Signals()
        outbox = Outbox(self.database)
        self.keys = KeyStore(self.database)
        service = JobService(self.settings, self.store.jobs, outbox, self.signals)
        self.http = TestClient(create_api(self.settings, service, self.keys), raise_server_exceptions=False)

    def post(self, job_id="a", **fields):
        return self.http.post(POST, json={"job_id": job_id, "video_url": VIDEO} | fields)

    def run(self, job_id="a", outcome: Outcome | None = None) -> None:
        """What a driver does to the row."""
        self.store.queue.admit_jobs()
        job = begin(self.store, job_id)
        attempt = Attempt.of(job)
        self.store.attempts.save_progress(attempt, Progress(percent=42, stage=Stage.DIARIZATION), spent_s=1)
        if outcome:
            self.store.attempts.finish_job(attempt, outcome)


@pytest.fixture
def edge(tmp_path):
    edge = Edge(tmp_path)
    yield edge
    edge.database.close()


@pytest.fixture(scope="module")
def empty_edge(tmp_path_factory):
    """One for all whose requests are refused: nothing is ever stored."""
    edge = Edge(tmp_path_factory.mktemp("empty"))
    yield edge
    edge.database.close()


@pytest.fixture(scope="module")
def edge_with_result(tmp_path_factory):
    """One for all who name the speakers of job `a`, which is completed."""
    edge = Edge(tmp_path_factory.mktemp("completed"))
    completed(edge)
    yield edge
    edge.database.close()


@pytest.fixture(autouse=True)
def _patient_health(monkeypatch):
    """A disk that is busy for a second makes /health say so, and is no fault."""
    monkeypatch.setattr(service_module, "HEALTH_S", 10)


def make(tmp_path, request, **overrides):
    edge = Edge(tmp_path, **overrides)
    request.addfinalizer(edge.database.close)
    return edge


def assert_refused(answer, status: int, code: str, job_id=None) -> str:
    """Every 4xx and 5xx has the one body of the contract."""
    content = answer.json()
    assert (answer.status_code, content["error"]["code"]) == (status, code), content
    assert content["message"] == content["error"]["message"]
    assert content["error"]["job_id"] == job_id
    assert set(content) == {"error", "message"}
    assert "secret" not in answer.text
    assert answer.headers["content-type"] == "application/json"
    return content["message"]


def test_the_answer_of_version_1_1(edge):
    """A v1.1 answer, word for word, with the job's own status_url."""
    answer = edge.post()
    assert answer.status_code == 200
    assert answer.json() == {
        "job_id": "a",
        "status": "processing",
        "message": "비디오 처리가 시작되었습니다",
        "status_url": "/api/upload-video/status/a",
        "estimated_time": 300,
    }
    assert edge.signals.pokes == 1


def test_the_answer_of_version_1_0(tmp_path, request):
    """Under contract_version 1.0: the old words, no status_url, and the old callback path."""
    edge = make(tmp_path, request, contract_version="1.0")
    answer = edge.post(fastapi_base_url="http://127.0.0.1:8000/")
    assert answer.json() == {
        "job_id": "a",
        "status": "accepted",
        "message": "Processing started",
        "estimated_time": 300,
    }
    assert edge.store.jobs.fetch_job("a").callback_url == "http://127.0.0.1:8000/api/v1/ml/ml-results"


def test_the_callback_url_is_the_requests_own(edge):
    """`fastapi_base_url` is the base of the callback URL."""
    edge.post(fastapi_base_url="http://127.0.0.1:8000")
    assert edge.store.jobs.fetch_job("a").callback_url == "http://127.0.0.1:8000/api/upload-video/result"


def test_a_retry_starts_nothing(edge):
    """The same content again: 200, the present state, no second run; a newly signed URL replaces the old one."""
    edge.post()
    again = edge.post(video_url=VIDEO.replace("secret", "newer"))
    assert (again.status_code, again.json()["status"]) == (200, "accepted")
    assert edge.signals.pokes == 1
    assert edge.store.jobs.fetch_job("a").video_url.endswith("newer")
    edge.run(outcome=Outcome(result=json.dumps(RESULT).encode()))
    assert edge.post().json()["status"] == "completed"
    assert edge.signals.pokes == 1


@pytest.mark.parametrize(
    "change",
    [
        *({"video_url": VIDEO.replace("a%20b", "c")}, {"language": "en"}, {"max_workers": 2}),
        *({"emotion_detection": False}, {"num_speakers": 2}, {"min_speakers": 1}, {"max_speakers": 9}),
        *({"vocabulary": ["GraphQL"]}, {"languages": ["ko", "en"]}, {"audio_track": 2}, {"channels": "separate"}),
        *({"start_s": 1.5}, {"end_s": 9}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_content_is_a_conflict(edge, change):
    """Different content under a known id: 409."""
    edge.post()
    assert_refused(edge.post(**change), 409, "JOB_CONFLICT", "a")


def test_every_option_is_taken(edge):
    """A POST with all of them is answered; the part of the video and the words, too, which spans call otherwise."""
    fields = {
        "vocabulary": ["Kim"],
        "languages": ["ko"],
        "audio_track": 2,
        "start_s": 1.5,
        "end_s": 9,
        "max_speakers": 3,
    }
    assert edge.post(**fields).status_code == 200
    options = edge.store.jobs.fetch_job("a").options
    assert (options.start_s, options.end_s, options.vocabulary) == (1.5, 9.0, ("Kim",))


def test_a_failed_job_runs_again(edge):
    """The same job_id after a failure starts a new run."""
    edge.post()
    edge.run(outcome=Outcome(error_code="DOWNLOAD_ERROR", error_message="no"))
    assert edge.post().json()["status"] == "processing"
    assert edge.store.jobs.fetch_job("a").run == 2


def nested(depth: int) -> dict:
    """An object of `depth` levels."""
    value: dict = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"video_url": None}, "video_url is required"),
        ({"job_id": None}, "job_id is required"),
        ({"job_id": ""}, "job_id"),
        ({"job_id": "../etc"}, "job_id"),
        ({"job_id": "a" * 129}, "job_id"),
        ({"job_id": "a b"}, "job_id"),
        ({"job_id": "a\n"}, "job_id"),
        ({"job_id": 7}, "job_id"),
        ({"video_url": ""}, "video_url"),
        ({"video_url": ["x"]}, "video_url"),
        ({"video_url": "http://h/" + "a" * 9000}, "video_url"),
        ({"language": "klingon"}, "auto, af, am"),
        ({"language": ""}, "language"),
        ({"enable_gpu": "yes"}, "enable_gpu"),
        ({"emotion_detection": 2}, "emotion_detection"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": 17}, "max_workers"),
        ({"max_workers": "4"}, "max_workers"),
        ({"max_workers": 2.5}, "max_workers"),
        ({"num_speakers": 0}, "num_speakers"),
        ({"num_speakers": 51}, "num_speakers"),
        ({"min_speakers": "2"}, "min_speakers"),
        ({"max_speakers": 2.0}, "max_speakers"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers is more than max_speakers"),
        ({"num_speakers": 2, "max_speakers": 2}, "num_speakers is for a known number"),
        ({"vocabulary": "GraphQL"}, "vocabulary"),
        ({"vocabulary": ["a"] * 101}, "vocabulary"),
        ({"vocabulary": ["a" * 81]}, "vocabulary"),
        ({"vocabulary": [7]}, "vocabulary"),
        ({"vocabulary": ["…"]}, "vocabulary has a term without letters"),
        ({"vocabulary": ["a\x00b"]}, "vocabulary has a term without letters"),
        ({"languages": ["ko", "klingon"]}, "languages"),
        ({"languages": ["qq"]}, "languages has one that is not what this server can do: af, am"),
        ({"languages": ["ko"], "language": "ko"}, "languages is for speech whose language is looked for"),
        ({"audio_track": 0}, "audio_track"),
        ({"audio_track": True}, "audio_track"),
        ({"audio_track": "korean"}, "audio_track"),
        ({"channels": "left"}, "channels"),
        ({"channels": "separate", "num_speakers": 2}, "a number of speakers contradicts it"),
        ({"start_s": -1}, "start_s"),
        ({"start_s": "1"}, "start_s"),
        ({"start_s": 5, "end_s": 5}, "end_s must be at least 0.1 s after start_s"),
        ({"end_s": 90_000}, "end_s"),
        ({"custom_metadata": []}, "custom_metadata"),
        ({"custom_metadata": {"a": "가" * 1400}}, "custom_metadata has more than 4096 bytes"),
        ({"custom_metadata": nested(17)}, "custom_metadata is nested more than 16 levels deep"),
        *[
            ({"custom_metadata": nested(depth)}, "custom_metadata is nested more than 16 levels deep")
            for depth in (600, 900, 940)
        ],
        ({"custom_metadata": {"a": float("inf")}}, "custom_metadata has something that JSON in UTF-8 cannot write"),
        ({"custom_metadata": {"a": "\ud800"}}, "custom_metadata has something that JSON in UTF-8 cannot write"),
        ({"callback_headers": {"x-a": 1}}, "callback_headers"),
        ({"callback_headers": {f"x-{n}": "a" for n in range(9)}}, "more than 8"),
        ({"callback_headers": {"X-A": "a", "x-a": "b"}}, "a name twice"),
        ({"callback_headers": {"x a": "a"}}, "a name that HTTP does not allow"),
        ({"callback_headers": {"": "a"}}, "a name that HTTP does not allow"),
        ({"callback_headers": {"x-a": "CANARY\r\nx-b: c"}}, "a value that HTTP does not allow, of x-a"),
        ({"callback_headers": {"x-a": "가"}}, "a value that HTTP does not allow"),
        ({"callback_headers": {"x-a": "a" * 2049}}, "a value that HTTP does not allow"),
        *[
            ({"callback_headers": {name: "a"}}, f"callback_headers may not set {name.lower()}")
            for name in (
                "Host",
                "Content-Length",
                "Transfer-Encoding",
                "TE",
                "webhook-id",
                "X-ML-Sequence",
                "Connection",
            )
        ],
    ],
    ids=str,
)
def test_wrong_fields_are_named(empty_edge, fields, words):
    """Missing, wrong, empty and huge fields: 400 that names the field, and nothing stored."""
    content = {"job_id": "a", "video_url": VIDEO} | fields
    body = json.dumps({key: value for key, value in content.items() if value is not None})
    answer = empty_edge.http.post(POST, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert words in answer.json()["message"]
    assert "CANARY" not in answer.text
    assert empty_edge.store.jobs.count_jobs().queued == 0


def test_the_deepest_metadata_comes_back(edge):
    """Sixteen levels, with null inside, stand in status and list as they were given."""
    given = nested(16) | {"b": None}
    assert edge.post("a", custom_metadata=given).status_code == 200
    assert edge.http.get("/api/upload-video/status/a").json()["custom_metadata"] == given
    assert edge.http.get("/api/upload-video/jobs").json()["jobs"][0]["custom_metadata"] == given


def test_what_the_caller_adds_is_no_content(edge):
    """A repeated POST with another token is the same job; the status repeats the metadata, nothing the headers."""
    first = {"custom_metadata": {"order": 7}, "callback_headers": {"Authorization": "Bearer CANARY-1"}}
    assert edge.post("a", **first).status_code == 200
    again = edge.post("a", callback_headers={"Authorization": "Bearer CANARY-2"})
    assert again.status_code == 200
    job = edge.store.jobs.fetch_job("a")
    assert job.callback_headers == {"authorization": "Bearer CANARY-2"}
    answers = [edge.http.get(f"/api/upload-video/{path}") for path in ("status/a", "jobs", "jobs/a/timeline")]
    assert [answer.json().get("custom_metadata") for answer in answers] == [{"order": 7}, None, None]
    assert answers[1].json()["jobs"][0]["custom_metadata"] == {"order": 7}
    assert "CANARY" not in "".join(answer.text for answer in answers)
    assert "CANARY" not in repr(job)


def test_contract_1_0_ignores_the_fields_of_1_1(tmp_path, request):
    """Right or wrong, as any unknown field; they are no part of the content, and nothing is made of them."""
    edge = make(tmp_path, request, contract_version="1.0")
    assert edge.post(num_speakers="two", max_speakers=-1).status_code == 200
    assert edge.post(num_speakers=3).status_code == 200
    assert edge.store.jobs.fetch_job("a").options.speaker_counts == {}


def test_the_content_of_a_job_of_the_release_before_is_what_it_was():
    """Its row has a fingerprint without the newer fields: the same request again is no conflict."""
    before = '["http", "127.0.0.1:9000", "/a.mp4", "http://b/result", {"emotion_detection": true, "enable_gpu": true,'
    before += ' "language": "auto", "max_workers": 4}]'
    digest = hashlib.sha256(before.encode()).hexdigest()
    assert fingerprint("http://127.0.0.1:9000/a.mp4?signed=1", "http://b/result", JobOptions()) == digest
    options = JobOptions(num_speakers=2)
    assert fingerprint("http://127.0.0.1:9000/a.mp4?signed=1", "http://b/result", options) != digest


def test_languages_are_those_of_the_engine_that_will_hear_the_job(tmp_path):
    """A CPU pool may know other languages than the GPU's recogniser: `enable_gpu` says which are meant."""
    pool = {"transcriber": {"engine": "whisperx", "model": "small", "device": "cpu"}}
    edge = Edge(
        tmp_path,
        transcriber={"engine": "whisperx", "model": "large-v3"},
        cpu_pool=pool | {"aligner": {}, "diarizer": {}, "emotion": {}},
    )
    assert edge.post("a", language="yue").status_code == 200
    refused = edge.post("b", language="yue", enable_gpu=False)
    assert "language is not one that this server can do" in assert_refused(refused, 400, "INVALID_REQUEST", "b")
    assert edge.post("c", language="ko", enable_gpu=False).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"job_id": "a",}'], ids=repr)
def test_what_is_not_a_json_object_is_refused(empty_edge, content):
    """Malformed JSON and JSON that is no object: 400 in the contract's form."""
    answer = empty_edge.http.post(POST, content=content, headers={"content-type": "application/json"})
    assert_refused(answer, 400, "INVALID_REQUEST")


def test_null_counts_as_absent_and_unknown_fields_are_ignored(edge):
    """A v1.0 backend and one that sends null or more than we know are both served."""
    assert edge.post(language=None, fastapi_base_url=None, max_workers=None, priority="high").status_code == 200
    assert edge.store.jobs.fetch_job("a").options.content == {
        "language": "auto",
        "enable_gpu": True,
        "emotion_detection": True,
        "max_workers": 4,
    }


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/a", "http://10.0.0.1/a", "http://u:secret@127.0.0.1/a", "file:///etc/passwd", "nonsense"]
)
def test_refused_videos(empty_edge, url):
    """Scheme, private address, credentials: VIDEO_URL_NOT_ALLOWED, and the URL is not repeated."""
    message = assert_refused(empty_edge.post(video_url=url), 400, "VIDEO_URL_NOT_ALLOWED", "a")
    assert "passwd" not in message


def test_refused_callbacks(edge):
    """A callback base off the whitelist: CALLBACK_NOT_ALLOWED."""
    assert_refused(edge.post(fastapi_base_url="http://evil.example.com"), 400, "CALLBACK_NOT_ALLOWED", "a")
    assert_refused(edge.post(fastapi_base_url="https://127.0.0.1:8000"), 400, "CALLBACK_NOT_ALLOWED", "a")


def test_unknown_places(edge):
    """404, 405 and unknown jobs have the contract's body too."""
    assert_refused(edge.http.get("/nothing"), 404, "NOT_FOUND")
    assert_refused(edge.http.get(POST), 405, "METHOD_NOT_ALLOWED")
    for method, path in [
        ("GET", "status/x"),
        ("DELETE", "jobs/x"),
        ("POST", "jobs/x/cancel"),
        ("POST", "jobs/x/redeliver"),
        ("GET", "jobs/x/timeline"),
        ("GET", "jobs/x/export"),
    ]:
        assert_refused(edge.http.request(method, f"/api/upload-video/{path}"), 404, "JOB_NOT_FOUND", "x")


def test_a_large_body_is_refused(edge):
    """Over the limit: 413, by its header and by counting a body without one."""
    large = json.dumps({"job_id": "a", "video_url": VIDEO, "padding": "x" * 70_000}).encode()
    assert_refused(edge.http.post(POST, content=large), 413, "REQUEST_TOO_LARGE")
    chunks = (large[start : start + 10_000] for start in range(0, len(large), 10_000))
    assert_refused(edge.http.post(POST, content=chunks), 413, "REQUEST_TOO_LARGE")


def test_a_full_queue_says_when_to_come_back(tmp_path, request):
    """503 with Retry-After, and /health still answers 200 with accepting false."""
    edge = make(tmp_path, request, limits={"running_jobs": 1, "queued_jobs": 1})
    assert edge.post("a").status_code == 200
    assert edge.post("b").status_code == 200
    refused = edge.post("c")
    assert_refused(refused, 503, "INSUFFICIENT_RESOURCES", "c")
    assert int(refused.headers["retry-after"]) >= 1
    health = edge.http.get("/health")
    assert (health.status_code, health.json()["accepting"]) == (200, False)


def test_d7_a_server_that_stops_takes_no_new_jobs(edge):
    """D7: 503 with Retry-After for what is new; what is known is answered, and /health says accepting false."""
    assert edge.post("a").status_code == 200
    set_draining(edge.database, draining=True)
    refused = edge.post("b")
    assert_refused(refused, 503, "SERVICE_UNAVAILABLE", "b")
    assert int(refused.headers["retry-after"]) >= 1
    assert edge.post("a").status_code == 200
    assert edge.http.get("/api/upload-video/status/a").status_code == 200
    health = edge.http.get("/health")
    assert (health.status_code, health.json()["accepting"]) == (200, False)


def test_health_names_what_is_broken(edge):
    """200 while all is well; 503 with the same shape and the failing part's name."""
    well = edge.http.get("/health")
    assert well.status_code == 200
    assert well.json()["jobs"] == {"running": 0, "queued": 0, "limit": 10, "queue_limit": 100}
    edge.signals.broken = ["job manager"]
    ill = edge.http.get("/health")
    assert (ill.status_code, ill.json()["status"], ill.json()["failing"]) == (503, "unhealthy", ["job manager"])
    assert set(ill.json()) == set(well.json())


def test_the_status_of_a_job_through_its_life(edge):
    """Accepted with its place in the queue, processing, completed with the very result object."""
    edge.post("a")
    edge.post("b")
    waiting = edge.http.get("/api/upload-video/status/b").json()
    assert (waiting["status"], waiting["progress"], waiting["queue_position"]) == ("accepted", 0, 2)
    edge.run("a")
    running = edge.http.get("/api/upload-video/status/a").json()
    assert (running["status"], running["progress"]) == ("processing", 42)
    assert "queue_position" not in running
    edge.run("a", Outcome(result=json.dumps(RESULT).encode()))
    done = edge.http.get("/api/upload-video/status/a").json()
    assert (done["status"], done["progress"], done["result"]) == ("completed", 100, RESULT)
    assert done["callback"] == {"state": "none", "attempts": 0, "last_error": None}
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_a_status_asked_while_the_job_is_deleted_tells_no_half(edge, monkeypatch):
    """Never `completed` without a result: the job is not there any more."""
    edge.post("a")
    edge.run("a", Outcome(result=json.dumps(RESULT).encode()))
    fetch_result = edge.store.jobs.fetch_result

    def deleted_just_before(job_id):
        edge.store.jobs.delete_job(job_id)
        return fetch_result(job_id)

    monkeypatch.setattr(edge.store.jobs, "fetch_result", deleted_just_before)
    assert_refused(edge.http.get("/api/upload-video/status/a"), 404, "JOB_NOT_FOUND", "a")


def test_cancel_and_delete(edge):
    """DELETE cancels what has not ended (202), deletes what has (200), and finds nothing afterwards (404)."""
    edge.post("a", fastapi_base_url="http://127.0.0.1:8000")
    cancelled = edge.http.delete("/api/upload-video/jobs/a")
    assert (cancelled.status_code, cancelled.json()["status"], cancelled.json()["error_code"]) == (
        202,
        "failed",
        CancelledJobError.code,
    )
    assert edge.http.get("/api/upload-video/status/a").json()["callback"]["state"] == "pending"
    assert edge.http.delete("/api/upload-video/jobs/a").status_code == 200
    assert edge.signals.discarded == ["a", "a"]
    assert_refused(edge.http.delete("/api/upload-video/jobs/a"), 404, "JOB_NOT_FOUND", "a")


def test_a_job_that_ends_while_it_is_to_be_cancelled_is_not_deleted(edge, monkeypatch):
    """A DELETE of a job that ran when it came is a cancel: 202 with the state, as ever, and the result stays."""
    edge.post()
    edge.run()
    cancel = edge.store.jobs.cancel_job

    def late(job_id, outcome):
        attempt = Attempt.of(edge.store.jobs.fetch_job(job_id))
        edge.store.attempts.finish_job(attempt, Outcome(result=json.dumps(RESULT).encode()))
        return cancel(job_id, outcome)

    monkeypatch.setattr(edge.store.jobs, "cancel_job", late)
    answer = edge.http.delete("/api/upload-video/jobs/a")
    assert (answer.status_code, answer.json()["status"]) == (202, "completed")
    assert edge.http.get("/api/upload-video/status/a").json()["result"] == RESULT


def test_cancel_is_a_verb_of_its_own(edge, monkeypatch):
    """202 for a job that waits or runs, 409 for one that has ended, also at that moment; no data is deleted."""
    cancel = "/api/upload-video/jobs/a/cancel"
    edge.post("a")
    waiting = edge.http.post(cancel)
    assert (waiting.status_code, waiting.json()["error_code"]) == (202, CancelledJobError.code)
    assert_refused(edge.http.post(cancel), 409, "JOB_CONFLICT", "a")
    assert edge.http.get("/api/upload-video/status/a").json()["status"] == "failed"
    edge.post("b")
    edge.run("b")
    running = edge.http.post(cancel.replace("/a/", "/b/"))
    assert (running.status_code, running.json()["status"]) == (202, "processing")
    cancel_job = edge.store.jobs.cancel_job

    def ended_just_before(job_id, outcome):
        edge.store.attempts.finish_job(Attempt.of(edge.store.jobs.fetch_job(job_id)), DONE)
        return cancel_job(job_id, outcome)

    monkeypatch.setattr(edge.store.jobs, "cancel_job", ended_just_before)
    assert_refused(edge.http.post(cancel.replace("/a/", "/b/")), 409, "JOB_CONFLICT", "b")
    assert edge.http.get("/api/upload-video/status/b").json()["status"] == "completed"


def test_redelivery_is_for_ended_jobs(edge):
    """202 for an ended job, 409 for one that runs."""
    edge.post("a", fastapi_base_url="http://127.0.0.1:8000")
    assert_refused(edge.http.post("/api/upload-video/jobs/a/redeliver"), 409, "JOB_CONFLICT", "a")
    edge.run("a", Outcome(error_code="DOWNLOAD_ERROR", error_message="no"))
    assert edge.http.post("/api/upload-video/jobs/a/redeliver").status_code == 202


SPEAKERS = "/api/upload-video/jobs/a/speakers"
TWO_SPEAK = {"text": "hi", "segments": [{"speaker": {"speaker_id": f"SPEAKER_0{number}"}} for number in (1, 0, 1)]}


def completed(edge, result=TWO_SPEAK, **fields) -> bytes:
    """Job `a`, which has just ended with this result; the result as stored."""
    edge.post("a", **fields)
    body = json.dumps(result).encode()
    edge.run("a", Outcome(result=body))
    return body


def test_speakers_get_names(edge, caplog):
    """PUT replaces all names; they stand beside the unchanged result, in no list, log line or timeline; {} removes."""
    caplog.set_level("DEBUG")
    result = completed(edge)
    view = edge.http.put(SPEAKERS, json={"SPEAKER_00": "CANARY 김철수", "SPEAKER_01": "Anna"})
    assert (view.status_code, view.json()["job_id"], view.json()["status"]) == (200, "a", "completed")
    names = {"SPEAKER_00": "CANARY 김철수", "SPEAKER_01": "Anna"}
    answer = edge.http.get("/api/upload-video/status/a")
    assert view.json()["speakers"] == answer.json()["speakers"] == names
    assert answer.content.endswith(b',"result":' + result + b"}")
    others = [edge.http.get(f"/api/upload-video/{path}").text for path in ("jobs", "jobs/a/timeline", "jobs/a/export")]
    told = json.loads(others[1])["events"][-1]
    assert (told["event"], told["detail"]) == ("speakers_named", None)
    assert "CANARY" not in "".join(others)
    assert "CANARY" not in caplog.text + repr(edge.store.jobs.fetch_job("a"))
    assert "speakers" not in json.loads(others[0])["jobs"][0]
    assert edge.http.put(SPEAKERS, json={"SPEAKER_01": "Anna"}).json()["speakers"] == {"SPEAKER_01": "Anna"}
    assert "speakers" not in edge.http.put(SPEAKERS, json={}).json()
    assert "speakers" not in edge.http.get("/api/upload-video/status/a").json()


@pytest.mark.parametrize(("sent", "stored"), [
    ("  Anna ", "Anna"), ("Lu\u0308", "L\u00fc"), ("\u1100\u1161", "가"),
    ("Jean\u00a0Paul", "Jean Paul"), ("نیک\u200cبین", "نیک\u200cبین"), ("👩\u200d🔬", "👩\u200d🔬"),
    ("x" * 100, "x" * 100), ("é" * 100 + " ", "é" * 100), ("=1+1", "=1+1"),
])  # fmt: skip
def test_a_name_is_stored_as_it_is_written(edge_with_result, sent, stored):
    """In NFC, without spaces around it; joiners that Persian or emoji need stay."""
    assert edge_with_result.http.put(SPEAKERS, json={"SPEAKER_00": sent}).json()["speakers"] == {"SPEAKER_00": stored}


@pytest.mark.parametrize("name", [
    "", " ", "x" * 101, "가" * 101, 7, None, ["a"], {"a": "b"}, "a\nb", "a\tb", "a\x00", "a\x1b[2J", "a\u202eb",
    "\u2066a", "\u200c", "\u3164", "\u200b", "a\ufeff", "\ud800", "\u2028", "a\u00ad",
], ids=ascii)  # fmt: skip
def test_a_name_that_is_none_is_refused(edge_with_result, name):
    """400 in a sentence with the speaker's id and not the name; what was there stays."""
    edge_with_result.http.put(SPEAKERS, json={"SPEAKER_01": "Anna"})
    sent = json.dumps({"SPEAKER_00": name}).encode()
    answer = edge_with_result.http.put(SPEAKERS, content=sent, headers={"content-type": "application/json"})
    assert "SPEAKER_00" in assert_refused(answer, 400, "INVALID_REQUEST", None)
    assert edge_with_result.http.get("/api/upload-video/status/a").json()["speakers"] == {"SPEAKER_01": "Anna"}


@pytest.mark.parametrize("key", ["SPEAKER_02", "speaker_00", "", "\ud800", "\u202e", "a\nb", "k" * 10_000], ids=ascii)
def test_only_the_results_speakers_get_names(edge_with_result, key):
    """400; an unknown id is named, beside those that there are; nothing is stored."""
    edge_with_result.http.put(SPEAKERS, json={})
    sent = json.dumps({"SPEAKER_00": "Anna", key: "CANARY"}).encode()
    answer = edge_with_result.http.put(SPEAKERS, content=sent, headers={"content-type": "application/json"})
    message = assert_refused(answer, 400, "INVALID_REQUEST", "a" if key.isprintable() else None)
    if key.isprintable():
        assert message == f"The result has no speaker {key[:40]}: it has SPEAKER_00, SPEAKER_01"
    assert "CANARY" not in message
    assert edge_with_result.store.jobs.fetch_job("a").speakers is None


@pytest.mark.parametrize("body", [b"", b"[]", b'"a"', b"null", b"{", b'{"SPEAKER_00": "\xff"}'])
def test_names_are_a_json_object(edge_with_result, body):
    """400 in the contract's form for every other body."""
    answer = edge_with_result.http.put(SPEAKERS, content=body, headers={"content-type": "application/json"})
    assert_refused(answer, 400, "INVALID_REQUEST", None)


def test_names_want_a_result(edge, monkeypatch):
    """409 for a job that waits, failed or runs anew; 404 for an unknown one; none where nobody speaks."""
    assert_refused(edge.http.put(SPEAKERS, json={}), 404, "JOB_NOT_FOUND", "a")
    edge.post("a")
    assert_refused(edge.http.put(SPEAKERS, json={"SPEAKER_00": "Anna"}), 409, "JOB_CONFLICT", "a")
    edge.run("a", Outcome(error_code="DOWNLOAD_ERROR", error_message="no"))
    assert_refused(edge.http.put(SPEAKERS, json={}), 409, "JOB_CONFLICT", "a")
    edge.post("a")
    edge.run("a", Outcome(result=json.dumps(RESULT).encode()))
    assert edge.http.put(SPEAKERS, json={}).status_code == 200
    assert "no speakers" in assert_refused(edge.http.put(SPEAKERS, json={"A": "B"}), 400, "INVALID_REQUEST", "a")
    fetch = edge.store.jobs.fetch_result

    def deleted_and_posted_again(job_id):
        result = fetch(job_id)
        edge.store.jobs.delete_job(job_id)
        completed(edge)
        return result

    monkeypatch.setattr(edge.store.jobs, "fetch_result", deleted_and_posted_again)
    assert_refused(edge.http.put(SPEAKERS, json={}), 409, "JOB_CONFLICT", "a")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_redelivery_has_the_names_under_1_1(tmp_path, request, version):
    """Under 1.0 the callback stays as it was; status and exports have the names under both."""
    edge = make(tmp_path, request, contract_version=version)
    result = result_for(VIDEO)
    completed(edge, result, fastapi_base_url="http://127.0.0.1:8000")
    [(first, *_)] = edge.store.outbox.due(1)
    edge.http.put(SPEAKERS, json={"SPEAKER_00": "김철수"})
    assert edge.http.post("/api/upload-video/jobs/a/redeliver").status_code == 202
    [(callback_id, *_)] = edge.store.outbox.due(1)
    body = json.loads(edge.store.outbox.claim(callback_id).body)
    assert (callback_id == first, body.get("speakers")) == ((True, None), (False, {"SPEAKER_00": "김철수"}))[
        version == "1.1"
    ]
    assert body["result"] == result
    assert "김철수: Hello there" in edge.http.get("/api/upload-video/jobs/a/export").text


def test_the_timeline_in_the_contract_s_form(edge):
    """Times in ISO 8601, the words of the contract, null where there is no detail."""
    edge.post("a")
    edge.run("a", Outcome(error_code="DOWNLOAD_ERROR", error_message="no"))
    told = edge.http.get("/api/upload-video/jobs/a/timeline").json()
    assert told["job_id"] == "a"
    assert [event.pop("at")[-1] for event in told["events"]] == ["Z"] * 4
    assert told["events"] == [
        {"event": "queued", "run": 1, "attempt": 0, "detail": None},
        {"event": "started", "run": 1, "attempt": 0, "detail": None},
        {"event": "attempt", "run": 1, "attempt": 1, "detail": None},
        {"event": "failed", "run": 1, "attempt": 1, "detail": "DOWNLOAD_ERROR"},
    ]


def test_the_list_is_paged_and_filtered(edge):
    """Newest first, by state, with a cursor."""
    for i in range(5):
        edge.post(f"job-{i}")
    first = edge.http.get("/api/upload-video/jobs", params={"limit": 3}).json()
    rest = edge.http.get("/api/upload-video/jobs", params={"limit": 3, "after": first["next_after"]}).json()
    assert [job["job_id"] for job in first["jobs"] + rest["jobs"]] == [f"job-{i}" for i in (4, 3, 2, 1, 0)]
    assert rest["next_after"] is None
    assert edge.http.get("/api/upload-video/jobs", params={"state": "completed"}).json()["jobs"] == []
    assert_refused(edge.http.get("/api/upload-video/jobs", params={"state": "lost"}), 400, "INVALID_REQUEST")


def test_a_cursor_whose_job_is_deleted_is_told(edge):
    """404 and not an empty page, as if nothing older were there."""
    edge.post("older")
    edge.post("newer")
    edge.run("newer", Outcome(error_code="DOWNLOAD_ERROR", error_message="no"))
    after = {"after": "newer"}
    assert [job["job_id"] for job in edge.http.get("/api/upload-video/jobs", params=after).json()["jobs"]] == ["older"]
    assert edge.http.delete("/api/upload-video/jobs/newer").status_code == 200
    assert_refused(edge.http.get("/api/upload-video/jobs", params=after), 404, "JOB_NOT_FOUND", "newer")


def test_rates_are_limited(tmp_path, request):
    """429 with Retry-After beyond the configured rate."""
    edge = make(tmp_path, request, rate_limit="2/minute")
    for _ in range(2):
        assert edge.http.get("/api/upload-video/jobs").status_code == 200
    refused = edge.http.get("/api/upload-video/jobs")
    assert_refused(refused, 429, "RATE_LIMITED")
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_a_broken_database_is_unavailable_not_a_crash(edge):
    """The database away: 503 SERVICE_UNAVAILABLE with Retry-After, no internals; /health names it."""
    with edge.database.write() as db:
        db.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
    refused = edge.post()
    assert_refused(refused, 503, "SERVICE_UNAVAILABLE")
    assert "retry-after" in refused.headers
    health = edge.http.get("/health")
    assert (health.status_code, health.json()["failing"]) == (503, ["database"])


def test_an_unexpected_error_says_nothing(edge, monkeypatch):
    """A bug of ours: 500 with a generic sentence, the details for the log only."""

    def broken(_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(edge.store.jobs, "submit_job", broken)
    assert assert_refused(edge.post(), 500, "INTERNAL_ERROR") == "Internal server error"


def test_the_estimate_follows_the_rates_measured(tmp_path, request):
    """300 while nothing is known; then the mean of the completed jobs, times the rounds the queue needs."""
    edge = make(tmp_path, request, limits={"running_jobs": 1, "queued_jobs": 9})
    assert edge.post("a").json()["estimated_time"] == 300
    edge.run("a", Outcome(result=b"{}", processing_s=60.0))
    assert edge.post("b").json()["estimated_time"] == 60
    assert edge.post("c").json()["estimated_time"] == 120
    assert edge.post("a").json()["estimated_time"] == 0
