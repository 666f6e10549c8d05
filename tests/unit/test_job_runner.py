"""The driver without Ray and without stages: its lease, its fence, and a database that is away."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from types import SimpleNamespace
from typing import Self

import pytest

from deployments.errors import TranscriptionError
from deployments.net.client import Answer
from serve_app.callbacks import progress_reporter
from serve_app.jobs.job import Outcome
from serve_app.jobs.stages import Step
from serve_app.jobs.states import JobState
from serve_app.orchestration import attempt as attempt_module
from serve_app.orchestration import job_runner as driver_module
from serve_app.orchestration.opening import open_stores
from serve_app.pipeline.checkpoint_writer import CheckpointWriter
from serve_app.storage import database as database_module
from serve_app.storage.attempt_store import AttemptStore
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import open_database
from tests.support.jobs import attempt_of, begin, new_job
from tests.support.managers import STAGES, settings_in, until


class Work:
    """In place of the pipeline: done when the test says so."""

    def __init__(self, *_: object, **__: object) -> None:
        Work.running.append(self)
        self.cancelled = False

    running: list[Work]
    done: asyncio.Event

    async def run(self, *_: object, **__: object) -> dict[str, object]:
        try:
            await Work.done.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return {"text": "", "segments": [], "duration": 1.0, "metadata": {"warnings": []}}


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """Short beats, and an actor that is this process."""
    context = SimpleNamespace(current_actor=None)
    ray = SimpleNamespace(get_runtime_context=lambda: context, kill=lambda _: None)
    monkeypatch.setattr(driver_module, "ray", ray)
    monkeypatch.setattr(driver_module, "Pipeline", Work)
    monkeypatch.setattr(attempt_module, "BEAT_S", 0.1)
    monkeypatch.setattr(attempt_module, "RETRY_WAITS_S", (0.05,))
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    Work.running = []
    Work.done = asyncio.Event()


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def store(store):
    store.jobs.submit_job(new_job("a"))
    store.queue.admit_jobs()
    return store


def driven(settings, job_id: str = "a"):
    """A driver of the job; awaiting it awaits its end."""
    return start(settings, job_id)._task


def start(settings, job_id: str = "a", manager=None, stages=STAGES):
    """A driver of the job."""
    manager = manager or SimpleNamespace(wake=SimpleNamespace(remote=lambda: None))
    database = open_database(settings)
    token = open_stores(settings, database).jobs.fetch_job(job_id).token
    database.close()
    return driver_module.JobRunner(job_id, 1, token, settings=settings, stages=stages, manager=manager)


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for it, without cancelling it."""
    done, _ = await asyncio.wait([task], timeout=20)
    assert done


async def test_d4_a_driver_beats_while_it_works(settings, store):
    """D4: its beats rise and its time is counted, although there is nothing to tell."""
    task = driven(settings)
    await until(lambda: store.jobs.fetch_job("a").beats >= 5)
    Work.done.set()
    await ended(task)
    job = store.jobs.fetch_job("a")
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert job.spent_s > 0.3


async def test_serve_looks_for_replicas_while_the_attempt_is_stored(settings, store, monkeypatch):
    """The extractor's router, which takes as long, starts meanwhile; a handle that fails then is the pipeline's."""
    looked_for = threading.Event()

    class Extractor:
        def __getattr__(self, name):
            looked_for.set()
            raise RuntimeError(name)

    begin_attempt = AttemptStore.begin_attempt

    def after_the_router(*given):
        assert looked_for.wait(20)
        return begin_attempt(*given)

    monkeypatch.setattr(AttemptStore, "begin_attempt", after_the_router)
    Work.done.set()
    await ended(start(settings, stages=SimpleNamespace(extractor=Extractor()))._task)
    assert store.jobs.fetch_job("a").state == JobState.COMPLETED


async def test_d4_a_driver_that_is_followed_stops(settings, store):
    """D4: another attempt has begun: the work is cancelled, and neither result nor failure is stored."""
    task = driven(settings)
    await until(lambda: store.jobs.fetch_job("a").beats > 0)
    begin(store, "a")
    await ended(task)
    assert [work.cancelled for work in Work.running] == [True]
    job = store.jobs.fetch_job("a")
    assert (job.state, job.attempt, job.error_code) == (JobState.RUNNING, 2, None)
    assert store.attempts.finish_job(attempt_of(store, "a", 2), Outcome(result=b"{}")) is not None


def test_d9_a_job_that_used_up_its_time(settings, store):
    """D9: the work is cancelled at the deadline, time of earlier attempts included, and the job fails."""
    begin(store, "a")
    store.attempts.beat(attempt_of(store, "a", 1), spent_s=1799.5)
    began = time.monotonic()
    asyncio.run(ended_in_time(settings))
    assert time.monotonic() - began < 10
    assert [work.cancelled for work in Work.running] == [True]
    assert (store.jobs.fetch_job("a").state, store.jobs.fetch_job("a").error_code) == (
        JobState.FAILED,
        "PROCESSING_TIMEOUT",
    )


async def ended_in_time(settings):
    await ended(driven(settings))


@pytest.mark.parametrize(
    ("error", "code"), [(TranscriptionError(), "TRANSCRIPTION_ERROR"), (KeyError("/secret/path"), "INTERNAL_ERROR")]
)
async def test_an_error_of_our_own_is_an_internal_one(settings, store, monkeypatch, error, code):
    """A fault of an engine has its own code; any other error is ours, and its words stay in the log."""

    async def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Work, "run", run)
    await ended(driven(settings))
    job = store.jobs.fetch_job("a")
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert "secret" not in job.error_message


async def test_d7_a_driver_that_is_told_to_leave(settings, store):
    """D7: the work stops, the attempt is uncounted and its time kept; often enough that crashes would be poison."""
    for _ in range(settings.limits.attempts + 1):
        begun = len(Work.running)
        driver = start(settings)
        await until(lambda begun=begun: len(Work.running) > begun and store.jobs.fetch_job("a").beats > 0)
        driver.give_back()
        await ended(driver._task)
        job = store.jobs.fetch_job("a")
        assert (job.state, job.attempt, job.error_code) == (JobState.RUNNING, 0, None)
    Work.done.set()
    await ended(driven(settings))
    assert [work.cancelled for work in Work.running] == [True] * (settings.limits.attempts + 1) + [False]
    job = store.jobs.fetch_job("a")
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert job.spent_s > 0


async def test_d7_a_cancelled_job_does_not_go_on(settings, store):
    """D7: a job that is cancelled just before the server stops ends as cancelled."""
    driver = start(settings)
    await until(lambda: bool(Work.running))
    driver.cancel()
    driver.give_back()
    await ended(driver._task)
    assert (store.jobs.fetch_job("a").state, store.jobs.fetch_job("a").error_code) == (JobState.FAILED, "CANCELLED")


async def test_d10_a_locked_database_costs_no_work(settings, store):
    """D10: locked when the attempt is to begin, and again when the result is to be stored: one attempt, one result."""
    path = settings.state_dir / "ml-server.db"

    async def locked(other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.6)  # several tries
        other.execute("ROLLBACK")

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        holding = asyncio.create_task(locked(other))
        await asyncio.sleep(0)
        task = driven(settings)
        await holding
        await until(lambda: bool(Work.running))
        other.execute("BEGIN IMMEDIATE")
        Work.done.set()
        await asyncio.sleep(0.6)
        assert not task.done()
        other.execute("ROLLBACK")
        await ended(task)
    job = store.jobs.fetch_job("a")
    assert (job.state, job.attempt, len(Work.running)) == (JobState.COMPLETED, 1, 1)
    assert store.jobs.fetch_result("a") is not None


class Client:
    """In place of `CallbackClient`: progress is refused, or a try of it never ends; ends are taken."""

    hangs: bool
    posts: list[str]

    def __init__(self, _policy: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def post(self, _url, body, _headers) -> Answer:
        Client.posts.append(json.loads(body)["status"])
        if Client.posts[-1] != "processing":
            return Answer(status=200, retry_after_s=None)
        if Client.hangs:
            await asyncio.Event().wait()
        return Answer(status=500, retry_after_s=None)


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
async def test_w4_progress_that_is_never_taken_holds_up_no_end(settings, store, hangs, monkeypatch):
    """W4: a try of progress hangs without a limit, or its next one is far away: the end waits for nothing of it."""
    monkeypatch.setattr(progress_reporter, "MIN_INTERVAL_S", 1e6)
    monkeypatch.setattr(driver_module, "CallbackClient", Client)
    Client.hangs, Client.posts = hangs, []
    store.jobs.submit_job(new_job("b", "http://127.0.0.1:9/result"))
    store.queue.admit_jobs()
    task = driven(settings, "b")
    await until(lambda: bool(Client.posts))
    Work.done.set()
    await ended(task)
    assert Client.posts == ["processing", "completed"]


async def test_the_manager_counts_every_try_of_its_progress(settings, store, monkeypatch):
    """What a driver tried is reported to the manager, all of it before the driver's process is gone."""
    monkeypatch.setattr(progress_reporter, "MIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(driver_module, "CallbackClient", Client)
    Client.hangs, Client.posts = False, []
    reported = Counter()
    report = SimpleNamespace(remote=reported.update)
    manager = SimpleNamespace(wake=SimpleNamespace(remote=lambda: None), count_progress=report)
    store.jobs.submit_job(new_job("b", "http://127.0.0.1:9/result"))
    store.queue.admit_jobs()
    task = start(settings, "b", manager)._task
    await until(lambda: len(Client.posts) == 3)
    Work.done.set()
    await ended(task)
    assert reported == {("failed", "http_5xx"): Client.posts.count("processing")}


class Saves(Work):
    """Has just stored an answer when its work begins."""

    async def run(self, *_: object, **__: object) -> dict[str, object]:
        self.checkpoints.save(Step.DIARIZATION, "source", [])
        return await super().run()

    def __init__(self, *args: object, checkpoints, **fields: object) -> None:
        super().__init__(*args, **fields)
        self.checkpoints = checkpoints


@pytest.fixture
def slow_saves(monkeypatch):
    """A database that takes its time for each checkpoint."""
    save = Checkpoints.save

    def slowly(*args):
        time.sleep(0.3)
        return save(*args)

    monkeypatch.setattr(Checkpoints, "save", slowly)


@pytest.mark.usefixtures("slow_saves")
async def test_d7_what_a_stage_has_just_finished_is_saved_before_a_leave(settings, store, monkeypatch):
    """D7: a checkpoint that is being written when the server stops is there for the next attempt."""
    monkeypatch.setattr(driver_module, "Pipeline", Saves)
    driver = start(settings)
    await until(lambda: bool(Work.running))
    await asyncio.sleep(0.05)
    driver.give_back()
    await ended(driver._task)
    database = open_database(settings)
    assert Checkpoints(database).sources("a").keys() == {Step.DIARIZATION}
    database.close()
    assert store.jobs.fetch_job("a").attempt == 0


@pytest.mark.usefixtures("slow_saves")
async def test_what_the_last_stage_has_just_finished_is_saved_before_the_end(settings, store, monkeypatch):
    """A rerun finds it: a checkpoint that comes after the end counts no more."""
    monkeypatch.setattr(driver_module, "Pipeline", Saves)
    Work.done.set()
    await ended(driven(settings))
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED
    assert store.jobs.checkpoints.sources("a").keys() == {Step.DIARIZATION}


async def test_checkpoints_that_hang_hold_up_no_end_for_long(settings, store, monkeypatch):
    """The job completes without them."""

    async def hangs(_self):
        await asyncio.Event().wait()

    monkeypatch.setattr(CheckpointWriter, "flush", hangs)
    monkeypatch.setattr(driver_module, "FLUSH_S", 0.5)
    Work.done.set()
    await ended(driven(settings))
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


async def test_d12_a_run_that_ends_deletes_its_audio(settings, store, monkeypatch):
    """D12: the job's own actor does it at once, by the run's token; the manager's sweep comes every ten minutes."""
    discarded = []

    async def discard(*args):
        discarded.append(args)

    monkeypatch.setattr(STAGES.extractor, "discard", SimpleNamespace(remote=discard))
    token = store.jobs.fetch_job("a").token
    Work.done.set()
    await ended(driven(settings))
    assert discarded == [("a", token)]


async def test_d6_an_attempt_over_the_limit_does_no_work(settings, store):
    """D6: an actor that Ray restarts again and again ends the job itself, where the manager is away."""
    for _ in range(settings.limits.attempts):
        begin(store, "a")
    await ended(driven(settings))
    job = store.jobs.fetch_job("a")
    assert (job.state, job.error_code) == (JobState.FAILED, "INTERNAL_ERROR")
