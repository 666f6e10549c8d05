"""Traces: one per run of a job, from the POST to the acknowledged callback, over all processes and attempts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from deployments.errors import DeviceError
from deployments.net import traces as traces_door
from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.cli.child_process import free_port
from serve_app.jobs.states import JobState
from serve_app.observability.tracing import Tracer
from serve_app.orchestration import job_runner as driver_module
from serve_app.orchestration.opening import open_stores
from serve_app.pipeline import stage_calls as calls
from serve_app.settings import Settings, Tracing
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import open_database
from serve_app.testing import FakeHandle, Response
from tests.support.backend import Backend
from tests.support.collector import collecting, tree
from tests.support.fake_graph import EARS, fails, graph, job
from tests.support.managers import ScriptedDrivers, running_manager, settings_in, until

POST = "POST process-video"
THEIRS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
KEPT = {"extraction", "transcription", "diarization", "tracks"}
SECRET = "X-Amz-Signature=geheim"  # noqa: S105 - what must not come out


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """An actor that is this process, and retries without waiting."""
    context = SimpleNamespace(current_actor=None)
    monkeypatch.setattr(driver_module, "ray", SimpleNamespace(get_runtime_context=lambda: context, kill=lambda _: None))
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


class Server:
    """API and store of one folder, and drivers over a graph of stubs."""

    def __init__(self, folder, endpoint: str) -> None:
        self.settings = settings_in(folder).model_copy(
            update={"tracing": Tracing(endpoint=endpoint), "transcriber": EARS}
        )
        self.database = open_database(self.settings)
        self.store = open_stores(self.settings, self.database)
        signals = SimpleNamespace(wake=lambda: None, discard=lambda _: None, failing=lambda: ())
        service = JobService(self.settings, self.store.jobs, self.store.outbox, signals)
        self.client = TestClient(create_api(self.settings, service, KeyStore(self.database)))

    def post(self, job_id: str = "a", *, base: str | None = None, **headers: str):
        body = {
            "job_id": job_id,
            "video_url": f"https://videos.example/secret/talk.mp4?{SECRET}",
            "fastapi_base_url": base,
            "callback_headers": {"X-Geheim": "Bearer geheim"},
        }
        answer = self.client.post("/api/upload-video/process-video", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def driver(self, job_id: str = "a", **stages):
        """A driver that works; awaiting its `_task` awaits its end."""
        plain = graph()
        extractor = FakeHandle(**plain.extractor._methods | {"discard": lambda *_: None})
        manager = SimpleNamespace(wake=SimpleNamespace(remote=lambda: None))
        return driver_module.JobRunner(
            job_id,
            1,
            self.store.jobs.fetch_job(job_id).token,
            settings=self.settings,
            stages=graph(extractor=extractor, **stages),
            manager=manager,
        )

    async def work(self, job_id: str = "a", **stages) -> None:
        """Admit, drive to the end."""
        await asyncio.to_thread(self.store.queue.admit_jobs)
        await self.driver(job_id, **stages)._task


@pytest.fixture
def server(tmp_path, collector):
    server = Server(tmp_path, collector.url)
    yield server
    server.database.close()


def test_one_trace_from_the_post_to_the_acknowledgement(server, collector, tmp_path):
    """API, driver and manager tell one trace; all parents are there, retries and refused callbacks too, no secret."""
    detect = graph().detector._methods["detect"]
    failures: list[Exception] = [DeviceError()]

    def hiccup(*args):
        if failures:
            raise failures.pop()
        return detect(*args)

    async def live() -> None:
        await server.work(detector=FakeHandle(detect=hiccup), diarizer=FakeHandle(segment=fails(ValueError(SECRET))))
        async with running_manager(server.settings, ScriptedDrivers(server.store, None)):
            await until(
                lambda: server.client.get("/api/upload-video/status/a").json()["callback"]["state"] == "delivered"
            )

    with Backend(lambda new, before: 500 if new.ended and not any(got.ended for got in before) else 200) as backend:
        server.post(base=backend.url)
        asyncio.run(live())
    spans = collector.of("a", until="acknowledged")
    named = Counter(tree(spans))
    attempt = f"{POST} > attempt"
    told = named.pop(f"{attempt} > progress callback")
    assert told >= 1
    assert named == {
        POST: 1,
        f"{POST} > queue": 1,
        attempt: 1,
        f"{attempt} > extraction": 1,
        f"{attempt} > extractor.prepare": 1,
        f"{attempt} > detection": 1,
        f"{attempt} > detector.detect": 2,
        f"{attempt} > transcription": 1,
        f"{attempt} > transcriber.transcribe": 2,
        f"{attempt} > diarization": 1,
        f"{attempt} > diarizer.segment": 1,
        f"{attempt} > prosody": 1,
        f"{attempt} > prosody.tracks": 1,
        f"{attempt} > analysis": 2,
        f"{attempt} > prosody.measure": 1,
        f"{attempt} > emotion.analyze": 1,
        f"{attempt} > assembly": 1,
        f"{POST} > terminal callback": 2,
        f"{POST} > acknowledged": 1,
    }
    by_name = {span.name: span for span in spans}
    assert {span.process for span in spans} == {"api", "driver", "manager"}
    first, second = (span for span in spans if span.name == "detector.detect")
    assert (first.error, first.attributes["ecg.number"]) == ("DeviceError", 1)
    assert (second.error, second.attributes["ecg.number"]) == (None, 2)
    assert by_name["diarizer.segment"].error == by_name["diarization"].error == "ValueError"
    tries = [(span.process, span.error) for span in spans if span.name == "terminal callback"]
    assert tries == [("driver", "http_500"), ("manager", None)]
    assert by_name["acknowledged"].start_s == pytest.approx(by_name["attempt"].end_s, abs=0.001)
    assert by_name[POST].start_s <= by_name["queue"].start_s <= by_name["queue"].end_s <= by_name["attempt"].start_s
    assert {got.headers["x-geheim"] for got in backend.of("a")} == {"Bearer geheim"}
    for raw in collector.raw:
        assert not [part for part in (b"secret", b"geheim", bytes(tmp_path), b"Traceback") if part in raw]


async def test_a_resumed_job_goes_on_in_its_trace(server, collector):
    """A driver that stands still for ever, one that gives its job back, one that ends it: attempts of one trace."""
    held = asyncio.Event()

    def wait(*_):
        held.set()
        return Response(asyncio.Event().wait())

    server.post()
    await asyncio.to_thread(server.store.queue.admit_jobs)
    for leaves in (False, True):
        held.clear()
        driver = server.driver(emotion=SimpleNamespace(analyze=SimpleNamespace(remote=wait)))
        await held.wait()
        await until(lambda: Checkpoints(server.database).sources("a").keys() >= KEPT)
        if leaves:
            driver.give_back()
            await driver._task
    await server.driver()._task
    assert server.store.jobs.fetch_job("a").state is JobState.COMPLETED
    spans = collector.of("a", until="attempt")
    tree(spans)
    attempts = sorted((span for span in spans if span.name == "attempt"), key=lambda span: span.start_s)
    assert [(each.error, each.attributes["ecg.end"]) for each in attempts] == [
        ("died", "attempt"),
        (None, "given_back"),
        (None, "completed"),
    ]
    ids = [each.id for each in attempts]
    assert {ids.index(span.parent) for span in spans if span.name == "transcription"} == {0}
    assert {ids.index(span.parent) for span in spans if span.name == "assembly"} == {2}


def test_a_job_that_ends_in_the_queue(server, collector):
    """Cancelled before it began: the trace tells how long it waited, and why it ended."""
    server.post()
    assert server.client.delete("/api/upload-video/jobs/a").status_code == 202
    spans = collector.of("a", until="queue")
    assert tree(spans) == [POST, f"{POST} > queue"]
    assert {span.error for span in spans} == {None, "CANCELLED"}


def test_a_second_run_has_a_trace_of_its_own(server, collector):
    """A failed job that is posted again begins anew."""
    for run in (1, 2):
        server.post()
        server.client.delete("/api/upload-video/jobs/a")
        spans = [span for span in waited(collector, 2 * run) if span.name == POST]
    assert [span.attributes["ecg.run"] for span in spans] == [1, 2]
    assert len({span.trace for span in spans}) == 2


def waited(collector, enough: int):
    """The spans, when so many have come."""
    asyncio.run(until(lambda: len(collector.spans) >= enough, within_s=10))
    return collector.spans


def test_the_backends_trace_is_continued(server, collector):
    """A `traceparent` that says so: the POST is below the backend's span. Its flag decides; nonsense is nobody's."""
    server.post("sampled", traceparent=f"{THEIRS}-01")
    server.post("sampled", traceparent=f"{THEIRS.replace('b7', 'c8')}-01")  # the same job, no other run
    server.post("silent", traceparent=f"{THEIRS}-00")
    server.post("plain", traceparent="00-nonsense")
    asyncio.run(server.work("sampled"))
    spans = collector.of("sampled", until="attempt")
    assert {span.trace for span in spans} == {THEIRS[3:35]}
    (post,) = (span for span in spans if span.name == POST)
    assert post.parent == THEIRS[36:]
    tree([replace(post, parent=""), *(span for span in spans if span is not post)])
    (plain,) = (span for span in collector.spans if span.attributes.get("ecg.job_id") == "plain")
    assert (plain.parent, plain.trace == THEIRS[3:35]) == ("", False)
    assert not [span for span in collector.spans if span.attributes.get("ecg.job_id") == "silent"]


@pytest.mark.parametrize(("ratio", "traced"), [(0, [0]), (0.5, range(5, 36)), (1, [40])])
def test_all_processes_agree_on_what_is_traced(tmp_path, collector, ratio, traced):
    """The share that was asked for; a job is traced by all that work on it, or by none."""
    tracing = {"endpoint": collector.url, "sampling_ratio": ratio}
    settings = settings_in(tmp_path).model_copy(update={"tracing": Tracing(**tracing)})
    jobs = [replace(job(), job_id=f"job-{number}", created_at=1.5 * number) for number in range(40)]
    here, there = ([Tracer(settings, None, process=name).of(each) for each in jobs] for name in ("api", "driver"))
    assert [each.trace_id for each in here] == [each.trace_id for each in there]
    assert [bool(each.send) for each in here] == [bool(each.send) for each in there]
    assert sum(bool(each.send) for each in here) in traced


@pytest.mark.parametrize("away", [True, False], ids=["dead", "hangs"])
def test_a_collector_that_takes_nothing_costs_nothing(tmp_path, monkeypatch, away):
    """Answer and end do not wait for a try of the collector (30 s here), the driver's own end waits for `FLUSH_S`."""
    monkeypatch.setattr(traces_door, "ONE_TRY_S", 30.0)
    with collecting(lambda: 0) as collector, Backend() as backend:
        server = Server(tmp_path, f"http://127.0.0.1:{free_port()}" if away else collector.url)
        began = time.monotonic()
        server.post(base=backend.url)
        assert time.monotonic() - began < 5
        asyncio.run(server.work())
        took_s = time.monotonic() - began
        end = backend.wait_end("a", within_s=1)
        server.database.close()
    assert end.at - began < 15
    assert began + took_s - end.at < 15
    assert end.body["status"] == "completed"


def test_traces_go_to_the_collector_only(tmp_path, monkeypatch):
    """Neither a proxy of the environment nor a redirect leads elsewhere."""
    with collecting() as canary, collecting(lambda: 308, f"{canary.url}/v1/traces") as collector:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, canary.url)
        server = Server(tmp_path, collector.url)
        server.post()
        asyncio.run(until(lambda: bool(collector.paths), within_s=10))
        time.sleep(0.3)
        server.database.close()
    assert set(collector.paths) == {"/v1/traces"}
    assert canary.paths == []


def test_a_collector_that_refuses_is_told_once(caplog):
    """A line when it begins and one when it is over, not one per batch, and without a traceback."""
    answers = [400, 400, 200]
    with collecting(lambda: answers.pop(0)) as refusing:
        sender = traces_door.Collector(
            f"{refusing.url}/v1/traces", service={"service.name": "x", "ecg.process": "x"}, ratio=1
        )
        for number in (1, 2, 3):
            sender.send("x", trace_id=1, span_id=number, parent_id=None, start_s=0, end_s=1, attributes={}, error=None)
            sender.flush(5)
    ours = [record for record in caplog.records if record.collector == refusing.url.removeprefix("http://")]
    assert [record.getMessage().partition(":")[0] for record in ours] == [
        "the collector of traces does not take them",
        "the collector of traces takes them again",
    ]


def test_off_nothing_is_loaded():
    """By default no process of ours loads what sends spans, whatever Ray itself loads of OpenTelemetry."""
    program = """if True:
        import sys, types
        from serve_app.settings import Settings
        import serve_app.ingress, serve_app.api.service
        import serve_app.orchestration.job_runner, serve_app.orchestration.manager
        from serve_app.observability.tracing import Tracer, UNTRACED
        assert Tracer(Settings(profile="local"), None, process="driver").of(None) is UNTRACED
        senders = ("opentelemetry.exporter.otlp", "deployments.net.traces")
        loaded = [name for name in sys.modules if name.startswith(senders)]
        assert not loaded, loaded
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://h/x", "http://user:pass@h:4318", "http://h/?key=1", "http://"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint):
    """By name, at the start."""
    with pytest.raises(ValidationError, match=r"tracing\.endpoint"):
        Settings(profile="local", tracing={"endpoint": endpoint})
