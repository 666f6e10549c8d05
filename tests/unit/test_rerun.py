"""A new run of an ended job with other options: what it computes again, what it refuses, and what stays readable."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import select, update
from sqlalchemy.event import listen

from deployments.types import AudioInfo, Turn
from ml_server_client import JobFailedError, MLServer, RefusedError
from serve_app.api.schemas import RerunRequest
from serve_app.cli.main import main
from serve_app.jobs.job import CallbackExtras, CallbackState, JobOptions, Outcome, Prefetch, Rerun
from serve_app.jobs.stages import Step
from serve_app.jobs.states import JobState
from serve_app.pipeline.checkpoint_codec import encode, source_of, spans_as_bytes
from serve_app.pipeline.checkpoint_writer import CheckpointWriter
from serve_app.pipeline.pipeline import Pipeline
from serve_app.pipeline.reuse import needs_sound
from serve_app.settings import Settings
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.tables import callbacks
from serve_app.storage.tables import checkpoints as rows
from serve_app.testing import FakeHandle
from tests.support.fake_graph import EARS, SECONDS, fails, graph, heard, job
from tests.support.fake_ml_server import result_for
from tests.support.jobs import BROKEN, CALLBACK_URL, DONE, begun, new_job, started
from tests.support.live_server import serving
from tests.support.stores import set_draining, stores
from tests.unit.test_api import VIDEO, Edge

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.orchestration.opening import Stores

SETTINGS = Settings(profile="local", transcriber=EARS)
AUDIO = {"prepare", "load"}
DETECTION, TRANSCRIPTION = {"detect"}, {"transcribe"}
DIARIZATION = {"segment", "embed", "cluster"}
SEGMENTS = {"measure", "analyze"}
EVERYTHING = AUDIO | DETECTION | TRANSCRIPTION | DIARIZATION | SEGMENTS | {"tracks"}
FRESH = VIDEO.replace("secret", "renewed")


def talk(**replaced: Any) -> Any:
    """A graph whose recogniser writes the language that it is asked for; its turns depend on the speakers' number."""

    def transcribe(audio: Any, chunk: Any, language: str, *more: Any, **_: Any) -> Any:
        said = heard(audio, chunk, language, *more)
        return replace(said, language="en" if language == "auto" else language)

    def cluster(*_: Any, **counts: int) -> list[Turn]:
        change_s = 9.0 if not counts else 14.0
        return [Turn(start_s=0, end_s=change_s, speaker=1), Turn(start_s=change_s, end_s=20, speaker=2)]

    info = AudioInfo(duration_s=SECONDS + 1, samples=int(SECONDS * 16_000), sha256="d")
    prepare = FakeHandle(prepare=lambda *_, **__: info, load=lambda *_: None)
    hears = FakeHandle(transcribe=transcribe, detect_language=lambda *_, **__: {"en": 1.0})
    tells_apart = FakeHandle(segment=lambda *_: "s", embed=lambda *_: "e", cluster=cluster)
    return graph(**{"extractor": prepare, "transcriber": hears, "diarizer": tells_apart} | replaced)


def calls(stages: Any) -> set[str]:
    names = ("extractor", "detector", "transcriber", "diarizer", "prosody", "emotion")
    return {call for name in names for call in getattr(stages, name).calls}


def rerun_of(store: Stores, *, needs_sound: bool = True, **options: Any) -> Rerun:
    present = store.jobs.fetch_job("a")
    assert present is not None
    return Rerun(
        job=present,
        video_url="https://v/1.mp4?X-Amz-Signature=new",
        video_expires_at=3e9,
        options=present.options.model_copy(update=options),
        extras=CallbackExtras(),
        needs_sound=needs_sound,
        changed=tuple(options),
    )


class Runs:
    """A job over its runs: the real pipeline and checkpoints over a graph of fakes."""

    def __init__(self, database: Any, settings: Settings = SETTINGS, **options: Any) -> None:
        self.store = stores(database, queue_limit=3, running_limit=2)
        self.checkpoints = Checkpoints(database)
        self.options = JobOptions(**options)
        self.settings = settings
        self.store.jobs.submit_job(new_job(options=self.options))
        self.run = 1

    def work(self, stages: Any = None) -> tuple[dict[str, Any], set[str]]:
        """Run the job to its end; the result, and the calls that it took."""
        stages = stages or talk()
        attempt = begun(self.store)
        result = self.try_once(attempt, stages)
        self.store.attempts.finish_job(attempt, Outcome(result=json.dumps(result).encode()))
        return result, calls(stages)

    def try_once(self, attempt: Attempt, stages: Any) -> dict[str, Any]:
        """Do the work of an attempt; it does not end the run."""
        writer = CheckpointWriter(self.checkpoints, attempt)
        own = replace(job(), options=self.options, run=self.run)
        line = Pipeline(own, self.settings, stages, report_progress=lambda *_: None, checkpoints=writer)

        async def work() -> dict[str, Any]:
            try:
                return await line.run(spent_s=0)
            finally:
                await writer.flush()

        return asyncio.run(work())

    def again(self, **options: Any) -> None:
        self.options = JobOptions(**self.options.model_dump() | options)
        assert self.store.jobs.rerun_job(rerun_of(self.store, **options)).started
        self.run += 1

    def needs_sound(self, **options: Any) -> bool:
        return needs_sound("a", JobOptions(**self.options.model_dump() | options), self.settings, self.checkpoints)


@pytest.fixture
def runs(database):
    return Runs(database)


# What is computed again


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({}, set()),
        ({"max_workers": 1}, set()),
        ({"enable_gpu": False}, set()),
        ({"emotion_detection": False}, set()),
        ({"num_speakers": 2}, AUDIO | DIARIZATION | SEGMENTS),
        ({"language": "ko"}, AUDIO | TRANSCRIPTION | SEGMENTS),
        ({"vocabulary": ("Kim",)}, AUDIO | TRANSCRIPTION),
        ({"languages": ("en", "ko")}, AUDIO | TRANSCRIPTION),
        ({"audio_track": 2}, AUDIO),
        ({"start_s": 5.0}, EVERYTHING),
        ({"channels": "separate"}, EVERYTHING),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)
def test_a_rerun_computes_only_what_the_change_touches(runs, changed, again):
    """Each changed option costs its own steps; what they give anew, such as other segments, costs what hangs on it."""
    first, _ = runs.work()
    listens = runs.needs_sound(**changed)
    runs.again(**changed)
    result, asked = runs.work()
    assert asked == again
    assert listens == ("prepare" in asked)
    assert ("emotion" in result["segments"][0]) == (changed != {"emotion_detection": False})
    assert result["text"] == first["text"]


def test_of_each_step_the_newest_answer_is_kept(runs):
    """Two changes, and what they replaced is gone; the option back at its old value is computed again."""
    runs.work()
    runs.again(num_speakers=2)
    runs.work()
    with runs.checkpoints._db.read() as db:
        kept = list(db.execute(select(rows.c.stage, rows.c.run)))
    assert len(kept) == len({stage for stage, _ in kept})
    assert dict(kept)[Step.DIARIZATION] == 2
    assert dict(kept)[Step.TRANSCRIPTION] == 1
    assert runs.needs_sound(num_speakers=None)
    assert not runs.needs_sound()


def test_emotions_of_other_segments_need_the_sound(runs):
    """They are stored, but of the turns before: a run that wants them again has to listen."""
    runs.work()
    runs.again(emotion_detection=False, num_speakers=2)
    runs.work()
    assert not runs.needs_sound()
    assert runs.needs_sound(emotion_detection=True)


def test_a_failed_run_leaves_what_it_has_finished(runs):
    """A run that failed in one stage is repeated from what it had: here speech had been detected."""
    attempt = begun(runs.store)
    with pytest.raises(ValueError, match="x"):
        runs.try_once(attempt, talk(transcriber=FakeHandle(transcribe=fails(ValueError("x")))))
    runs.store.attempts.finish_job(attempt, BROKEN)
    assert runs.needs_sound()
    runs.again()
    _, asked = runs.work()
    assert asked >= AUDIO | TRANSCRIPTION
    assert asked.isdisjoint(DETECTION)


@pytest.mark.parametrize("step", [Step.EXTRACTION, Step.TRANSCRIPTION, Step.DIARIZATION, Step.TRACKS, Step.EMOTION])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_lost_answer_needs_the_sound(runs, step, damage):
    """Before a run is taken without a URL all that it would use is there, and whole."""
    runs.work()
    assert not runs.needs_sound()
    with runs.checkpoints._db.write() as db:
        if damage == "missing":
            db.execute(rows.delete().where(rows.c.stage == step))
        else:
            body = db.execute(select(rows.c.body).where(rows.c.stage == step)).scalar_one()
            db.execute(update(rows).where(rows.c.stage == step).values(body=bytes(body)[:-1] + b"?"))
    assert runs.needs_sound()


def test_answers_of_other_engines_need_the_sound(runs):
    """A server whose config names another model starts anew."""
    runs.work()
    runs.settings = Settings(profile="local", transcriber=EARS.model_copy(update={"model": "small.en"}))
    assert runs.needs_sound()


def test_a_text_of_one_language_is_none_of_another(database):
    """The release before has saved it under a source without the language: it is not used, and made anew."""
    runs = Runs(database, language="en")
    attempt = begun(runs.store)
    before = source_of("d", SETTINGS.model_version)
    runs.try_once(attempt, talk())
    with database.write() as db:
        body = bytes(db.execute(select(rows.c.body).where(rows.c.stage == Step.TRANSCRIPTION)).scalar_one())
    assert not body.startswith(before.encode())
    assert runs.checkpoints.save(attempt, Step.TRANSCRIPTION, before.encode() + body[64:])
    stages = talk()
    runs.try_once(attempt, stages)
    assert calls(stages) == AUDIO | TRANSCRIPTION
    runs.store.attempts.finish_job(attempt, DONE)
    assert not runs.needs_sound()
    assert runs.needs_sound(language="auto")


def test_where_nobody_speaks_a_rerun_needs_no_sound(database):
    """There are no segments whose emotions somebody could listen for."""
    runs = Runs(database)
    runs.work(talk(detector=FakeHandle(detect=lambda *_: [])))
    assert not runs.needs_sound()


def test_a_job_without_these_options_has_the_sources_that_it_had(runs):
    """The checkpoints of a job that names nothing are those of the release before, to the byte."""
    runs.work()
    saved = runs.checkpoints.sources("a")
    audio = source_of("d", SETTINGS.model_version)
    assert saved[Step.EXTRACTION].source == source_of("run")
    for step in (Step.DETECTION, Step.TRANSCRIPTION, Step.DIARIZATION, Step.TRACKS):
        assert saved[step].source == audio, step


# The job's row


def test_the_old_result_stays_until_the_new_one(database):
    """It is readable while the new run waits, runs, and after it failed; the next completed run replaces it."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    for outcome in (BROKEN, replace(DONE, result=b'{"text":"new","segments":[]}')):
        submission = store.jobs.rerun_job(rerun_of(store, num_speakers=2))
        assert submission.started
        assert submission.job is not None
        assert submission.job.state is JobState.QUEUED
        assert store.jobs.fetch_result("a") == DONE.result
        attempt = begun(store)
        assert store.jobs.fetch_result("a") == DONE.result
        store.attempts.finish_job(attempt, outcome)
        assert store.jobs.fetch_result("a") == (outcome.result or DONE.result)
        assert store.jobs.fetch_job("a").state is outcome.state


def test_a_rerun_is_a_run_of_its_own(database):
    """Another token, the next number, nothing spent, the options asked for; its event names what changed."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), BROKEN)
    before = store.jobs.fetch_job("a")
    after = store.jobs.rerun_job(rerun_of(store, num_speakers=2)).job
    assert (after.run, after.attempt, after.spent_s, after.error_code) == (2, 0, 0.0, None)
    assert after.token != before.token
    assert after.actor_name != before.actor_name
    assert after.options.num_speakers == 2
    assert after.fingerprint == before.fingerprint
    assert after.sequence == before.sequence
    assert (after.video_url, after.video_expires_at) == ("https://v/1.mp4?X-Amz-Signature=new", 3e9)
    assert store.jobs.fetch_timeline("a")[-1].detail == "rerun num_speakers"


def test_a_run_that_needs_no_sound_is_not_fetched_ahead(database):
    """The prefetch takes only those that have to listen."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    for needs, state in ((False, Prefetch.DONE), (True, Prefetch.NONE)):
        assert store.jobs.rerun_job(rerun_of(store, needs_sound=needs)).job.prefetch is state
        assert bool(store.queue.select_jobs_to_prefetch(5)) == needs
        store.attempts.finish_job(begun(store), DONE)


def test_of_two_reruns_one_begins(database):
    """Who has read the job before another run began is refused, also when that run has ended again."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    late = rerun_of(store)
    assert store.jobs.rerun_job(rerun_of(store)).started
    assert store.jobs.rerun_job(late).conflict
    store.attempts.finish_job(begun(store), DONE)
    assert store.jobs.rerun_job(late).conflict
    store.jobs.delete_job("a")
    assert store.jobs.rerun_job(late).conflict


def test_w5_the_end_of_the_run_before_is_told_no_more(database):
    """A pending end is given up when the rerun begins, and the new run's end has a higher number."""
    store = stores(database, queue_limit=3, running_limit=2)
    first = store.attempts.finish_job(started(store, callback_url=CALLBACK_URL), DONE).callback_id
    store.jobs.rerun_job(rerun_of(store))
    assert store.outbox.claim(first) is None
    second = store.attempts.finish_job(begun(store), DONE).callback_id
    with database.read() as db:
        told = {row.id: row for row in db.execute(select(callbacks))}
    assert told[first].state == CallbackState.UNDELIVERED
    assert told[second].state == CallbackState.PENDING
    assert told[second].sequence > told[first].sequence


def test_the_first_post_repeated_after_a_rerun(database):
    """It is still the same content: it finds a run or a result, and after a failure it starts with its own options."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    store.jobs.rerun_job(rerun_of(store, num_speakers=2))
    again = store.jobs.submit_job(new_job())
    assert (again.started, again.conflict, again.job.state, again.job.run) == (False, False, JobState.QUEUED, 2)
    store.attempts.finish_job(begun(store), BROKEN)
    failed = store.jobs.submit_job(new_job())
    assert (failed.started, failed.job.run, failed.job.options.num_speakers) == (True, 3, None)
    assert store.jobs.fetch_result("a") == DONE.result


def test_a_full_or_draining_server_takes_no_rerun(database):
    """As of a POST."""
    store = stores(database, queue_limit=0, running_limit=1)
    store.attempts.finish_job(started(store), DONE)
    set_draining(database, draining=True)
    assert store.jobs.rerun_job(rerun_of(store)).draining
    set_draining(database, draining=False)
    store.jobs.submit_job(new_job("b"))
    refused = store.jobs.rerun_job(rerun_of(store))
    assert (refused.job, refused.started, refused.conflict) == (None, False, False)
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


def test_the_estimate_goes_by_ended_jobs(database):
    """A job that runs again counts with no time until it has ended again."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    assert store.jobs.estimate_s(None) is not None
    store.jobs.rerun_job(rerun_of(store))
    assert store.jobs.estimate_s(None) is None


def test_the_estimate_reads_few_rows(database):
    """It is made at each POST: the newest jobs come from an index, however many results are stored."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store), DONE)
    asked = []
    listen(database._reader, "before_cursor_execute", lambda *event: asked.append((event[2], event[3])))
    store.jobs.estimate_s(None)
    ((query, values),) = [each for each in asked if "processing_s" in each[0]]
    if database.is_sqlite:
        with database._reader.connect() as db:
            plan = str(db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all())
        assert "jobs_by_end" in plan
        assert "TEMP B-TREE" not in plan


def test_names_are_those_of_the_result_that_is_there(database):
    """A rerun that fails or is cancelled leaves both; they can be changed meanwhile. A new result has none."""
    store = stores(database, queue_limit=3, running_limit=2)
    store.attempts.finish_job(started(store, "a", CALLBACK_URL), DONE)
    store.jobs.name_speakers(store.jobs.fetch_job("a"), {"SPEAKER_00": "Anna"})
    store.jobs.rerun_job(rerun_of(store))
    assert store.jobs.name_speakers(store.jobs.fetch_job("a"), {"SPEAKER_00": "Ben"})
    store.jobs.cancel_job("a", BROKEN)
    ended = store.jobs.fetch_job("a")
    assert (ended.state, ended.speakers) == (JobState.FAILED, {"SPEAKER_00": "Ben"})
    assert store.jobs.name_speakers(ended, {"SPEAKER_00": "Cho"}).speakers == {"SPEAKER_00": "Cho"}
    newest = select(callbacks.c.body).order_by(callbacks.c.sequence.desc()).limit(1)
    with database.read() as db:
        told = json.loads(db.execute(newest).scalar_one())
    assert (told["status"], "speakers" in told) == ("failed", False)
    store.outbox.redeliver("a", end_body=lambda *_: b"another")
    with database.read() as db:
        assert json.loads(db.execute(newest).scalar_one()) == told
    store.jobs.rerun_job(rerun_of(store))
    store.attempts.finish_job(begun(store), DONE)
    assert store.jobs.fetch_job("a").speakers is None


# The route


@pytest.fixture
def edge(tmp_path):
    edge = Edge(tmp_path)
    yield edge
    edge.database.close()


@pytest.fixture(scope="module")
def edge_with_result(tmp_path_factory):
    """One for all whose reruns of job `a`, which is completed, are refused."""
    edge = Edge(tmp_path_factory.mktemp("completed"))
    complete(edge)
    yield edge
    edge.database.close()


def rerun(edge: Edge, job_id: str = "a", **fields: Any) -> Any:
    return edge.http.post(f"/api/upload-video/jobs/{job_id}/rerun", json=fields)


def status(edge: Edge) -> dict[str, Any]:
    return edge.http.get("/api/upload-video/status/a").json()


def complete(edge: Edge, outcome: Outcome = DONE, **fields: Any) -> None:
    """Post a job and complete it, with all of its answers stored."""
    edge.post(**fields)
    edge.store.queue.admit_jobs()
    attempt = begun(edge.store)
    options = edge.store.jobs.fetch_job("a").options
    audio = AudioInfo(duration_s=1.0, samples=16_000, sha256="d")
    source = source_of("d", edge.settings.on(enable_gpu=options.enable_gpu).model_version)
    saved = {
        Step.EXTRACTION: source_of("run").encode() + b"\n" + encode(Step.EXTRACTION, audio),
        Step.EMOTION: source_of(source, spans_as_bytes([])).encode() + b"\n[]",
        **dict.fromkeys((Step.DETECTION, Step.TRANSCRIPTION, Step.DIARIZATION, Step.TRACKS), source.encode() + b"\n{}"),
    }
    for step, body in saved.items():
        edge.store.jobs.checkpoints.save(attempt, step, body)
    edge.store.attempts.finish_job(attempt, outcome)


def test_a_rerun_is_accepted_as_a_post_is(edge):
    """The answer is a POST's; the status then tells the new run and the old result, and exports it."""
    complete(edge, emotion_detection=True)
    answer = rerun(edge, emotion_detection=False)
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert answer.json()["status_url"] == "/api/upload-video/status/a"
    now = status(edge)
    assert (now["status"], now["result"]) == ("accepted", json.loads(DONE.result))
    assert edge.http.get("/api/upload-video/jobs/a/export?format=json").content == DONE.result
    assert edge.http.get("/api/upload-video/jobs").json()["jobs"][0]["run"] == 2
    assert edge.signals.pokes == 2
    edge.run(outcome=BROKEN)
    now = status(edge)
    assert (now["status"], now["error_code"], now["result"]) == ("failed", "DOWNLOAD_ERROR", json.loads(DONE.result))


def test_an_absent_field_keeps_its_value_and_null_is_the_default(edge):
    """Options, metadata and headers alike."""
    given = {"custom_metadata": {"order": 7}, "callback_headers": {"X-Token": "t"}}
    complete(edge, min_speakers=2, vocabulary=["Kim"], **given)
    assert rerun(edge, video_url=FRESH, min_speakers=None, max_workers=8, callback_headers=None).status_code == 202
    job = edge.store.jobs.fetch_job("a")
    assert (job.options.vocabulary, job.options.min_speakers, job.options.max_workers) == (("Kim",), None, 8)
    assert (json.loads(job.custom_metadata), job.callback_headers) == ({"order": 7}, None)
    assert job.video_url == FRESH


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"num_speakers": 2}, 400, "video_url is required"),
        ({"language": "ko"}, 400, "video_url is required"),
        ({"num_speakers": 2, "video_url": FRESH.replace("videos", "others")}, 409, "another video"),
        ({"num_speakers": 2, "video_url": FRESH.replace("9000", "9001")}, 409, "another video"),
        ({"num_speakers": 2, "min_speakers": 3, "video_url": FRESH}, 400, "num_speakers is for a known number"),
        ({"num_speakers": 0}, 400, "num_speakers is invalid"),
        ({"language": "xx", "video_url": FRESH}, 400, "language is not one"),
        ({"vocabulary": ["..."], "video_url": FRESH}, 400, "vocabulary has a term"),
        ({"custom_metadata": {"x": "y" * 5000}}, 400, "custom_metadata has more"),
        ({"callback_headers": {"Host": "x"}}, 400, "callback_headers"),
    ],
)
def test_what_a_rerun_is_refused_for(edge_with_result, fields, code, says):
    """Each refusal says why, and changes nothing."""
    before = edge_with_result.store.jobs.fetch_job("a")
    answer = rerun(edge_with_result, **fields)
    assert (answer.status_code, says in answer.json()["message"]) == (code, True), answer.text
    assert answer.json()["error"]["job_id"] in {"a", None}
    assert edge_with_result.store.jobs.fetch_job("a") == before


def test_a_job_that_has_not_ended_is_not_run_again(edge):
    """409 while it waits and while it runs, also for the same rerun once more; 404 for none."""
    edge.post()
    assert rerun(edge).status_code == 409
    edge.run()
    assert rerun(edge).status_code == 409
    assert rerun(edge, "unknown").status_code == 404
    edge.store.attempts.finish_job(begun(edge.store), DONE)
    assert rerun(edge, video_url=FRESH).status_code == 202
    assert rerun(edge, video_url=FRESH).status_code == 409


@pytest.mark.parametrize("url", ["http://[abc", "https://ex\u2100mple.com/a", "ftp://127.0.0.1/a", "http://10.1.1.1/x"])
def test_an_address_that_is_none_is_refused(edge_with_result, url):
    """As by a POST: nothing is compared with what cannot be read."""
    answer = rerun(edge_with_result, video_url=url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VIDEO_URL_NOT_ALLOWED")


def test_while_a_manager_of_another_release_works_reruns_wait(edge):
    """It would not know that the old result stays."""
    complete(edge)
    edge.signals.is_managed = lambda: False
    answer = rerun(edge)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"]
    assert edge.store.jobs.fetch_job("a").run == 1


def test_a_full_or_draining_server_answers_503(tmp_path, request):
    """With Retry-After, as to a POST."""
    edge = Edge(tmp_path, limits={"running_jobs": 1, "queued_jobs": 0})
    request.addfinalizer(edge.database.close)
    complete(edge)
    edge.post("b")
    full = rerun(edge, emotion_detection=False)
    assert (full.status_code, full.json()["error"]["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert int(full.headers["Retry-After"]) > 0
    set_draining(edge.database, draining=True)
    assert rerun(edge, emotion_detection=False).json()["error"]["code"] == "SERVICE_UNAVAILABLE"


def test_contract_1_0_knows_no_rerun(tmp_path, request):
    """The route is unknown there."""
    edge = Edge(tmp_path, contract_version="1.0")
    request.addfinalizer(edge.database.close)
    complete(edge)
    answer = rerun(edge, emotion_detection=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_every_option_can_be_changed():
    """The body has all options of a POST that may change what is computed, and its callbacks' extras."""
    options = set(JobOptions.model_fields) - {"traceparent"}
    assert set(RerunRequest.model_fields) == options | {"video_url", "custom_metadata", "callback_headers"}


# Who asks for it


async def test_the_client_waits_for_the_new_result(tmp_path):
    """`rerun` is sent once and tells a refusal; `wait` then returns no old result, and raises when the run fails."""
    edge = Edge(tmp_path)
    complete(edge, Outcome(result=json.dumps(result_for(VIDEO)).encode()))
    async with MLServer("http://localhost", transport=httpx.ASGITransport(edge.http.app)) as server:
        with pytest.raises(RefusedError) as refused:
            await server.rerun("a", num_speakers=2)
        assert (refused.value.http_status, refused.value.code) == (400, "INVALID_REQUEST")
        assert (await server.rerun("a", num_speakers=2, video_url=FRESH)).status == "processing"
        waiting = await server.status("a")
        assert (waiting.status, waiting.result is None) == ("accepted", False)
        with pytest.raises(TimeoutError):
            await server.wait("a", timeout_s=0.2, poll_s=0.01)
        edge.run(outcome=BROKEN)
        with pytest.raises(JobFailedError):
            await server.wait("a")
    edge.database.close()


def test_the_command_sends_what_is_given(tmp_path):
    """`ml-server rerun` sends options that were named, and null for those that are reset; a refusal ends it with 1."""
    edge = Edge(tmp_path)
    complete(edge, min_speakers=2, vocabulary=["Kim"])
    with serving(edge.http.app) as url:
        command = ["rerun", "a", "--server", url]
        refused = CliRunner().invoke(main, [*command, "--num-speakers", "3", "--reset", "min_speakers"])
        assert refused.exit_code == 1
        contradiction = CliRunner().invoke(main, [*command, "--vocabulary", "Lee", "--reset", "vocabulary"])
        assert contradiction.exit_code == 2
        assert "--reset vocabulary contradicts its new value" in contradiction.output
        options = ["--video-url", FRESH, "--num-speakers", "3", "--no-emotion", "--reset", "min_speakers"]
        assert CliRunner().invoke(main, [*command, *options]).exit_code == 0
    stored = edge.store.jobs.fetch_job("a").options
    assert (stored.num_speakers, stored.min_speakers, stored.emotion_detection) == (3, None, False)
    assert (stored.vocabulary, stored.language, stored.max_workers) == (("Kim",), "auto", 4)
    edge.database.close()
