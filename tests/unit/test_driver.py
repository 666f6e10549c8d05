"""The driver without Ray and without stages: its lease, its fence, and a database that is away."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from serve_app.callbacks import sender as sender_module
from serve_app.callbacks.outbox import BREAKER_FAILURES
from serve_app.jobs import database as database_module
from serve_app.jobs import driver as driver_module
from serve_app.jobs.model import Attempt, Outcome
from serve_app.jobs.opening import open_database, open_store
from serve_app.jobs.states import JobState
from tests.support.backend import Backend
from tests.support.managers import STAGES, settings_in, until, waiting


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
    monkeypatch.setattr(driver_module, "BEAT_S", 0.1)
    monkeypatch.setattr(driver_module, "AWAY_WAITS_S", (0.05,))
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    Work.running = []
    Work.done = asyncio.Event()


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def store(settings):
    database = open_database(settings)
    store = open_store(settings, database)[0]
    store.submit(waiting("a"))
    store.admit()
    yield store
    database.close()


def driven(settings, job_id: str = "a"):
    """A driver of the job; awaiting it awaits its end."""
    return start(settings, job_id)._task


def start(settings, job_id: str = "a"):
    """A driver of the job."""
    manager = SimpleNamespace(poke=SimpleNamespace(remote=lambda: None))
    return driver_module.Driver(job_id, 1, settings, STAGES, manager)


async def ended(task: asyncio.Task[None]) -> None:
    """Wait for it, without cancelling it."""
    done, _ = await asyncio.wait([task], timeout=20)
    assert done


def test_d4_a_driver_beats_while_it_works(settings, store):
    """D4: its beats rise and its time is counted, although there is nothing to tell."""

    async def run() -> None:
        task = driven(settings)
        await until(lambda: store.get("a").beats >= 5)
        Work.done.set()
        await ended(task)

    asyncio.run(run())
    job = store.get("a")
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert job.spent_s > 0.3


def test_d4_a_driver_that_is_followed_stops(settings, store):
    """D4: another attempt has begun: the work is cancelled, and neither result nor failure is stored."""

    async def run() -> None:
        task = driven(settings)
        await until(lambda: store.get("a").beats > 0)
        store.begin_attempt("a", 1)
        await ended(task)

    asyncio.run(run())
    assert [work.cancelled for work in Work.running] == [True]
    job = store.get("a")
    assert (job.state, job.attempt, job.error_code) == (JobState.RUNNING, 2, None)
    assert store.finish(Attempt(job_id="a", run=1, number=2), Outcome(result=b"{}")) is not None


def test_d9_a_job_that_used_up_its_time(settings, store):
    """D9: the work is cancelled at the deadline, time of earlier attempts included, and the job fails."""
    store.begin_attempt("a", 1)
    store.beat(Attempt(job_id="a", run=1, number=1), spent_s=1799.5)
    began = time.monotonic()
    asyncio.run(ended_in_time(settings))
    assert time.monotonic() - began < 10
    assert [work.cancelled for work in Work.running] == [True]
    assert (store.get("a").state, store.get("a").error_code) == (JobState.FAILED, "PROCESSING_TIMEOUT")


async def ended_in_time(settings):
    await ended(driven(settings))


def test_d7_a_driver_that_is_told_to_leave(settings, store):
    """D7: the work stops, the attempt is uncounted and its time kept; often enough that crashes would be poison."""

    async def run() -> None:
        for _ in range(settings.limits.attempts + 1):
            begun = len(Work.running)
            driver = start(settings)
            await until(lambda begun=begun: len(Work.running) > begun and store.get("a").beats > 0)
            driver.leave()
            await ended(driver._task)
            job = store.get("a")
            assert (job.state, job.attempt, job.error_code) == (JobState.RUNNING, 0, None)
        Work.done.set()
        await ended(driven(settings))

    asyncio.run(run())
    assert [work.cancelled for work in Work.running] == [True] * (settings.limits.attempts + 1) + [False]
    job = store.get("a")
    assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
    assert job.spent_s > 0


def test_d7_a_cancelled_job_does_not_go_on(settings, store):
    """D7: a job that is cancelled just before the server stops ends as cancelled."""

    async def run() -> None:
        driver = start(settings)
        await until(lambda: bool(Work.running))
        driver.cancel()
        driver.leave()
        await ended(driver._task)

    asyncio.run(run())
    assert (store.get("a").state, store.get("a").error_code) == (JobState.FAILED, "CANCELLED")


def test_d10_a_locked_database_costs_no_work(settings, store):
    """D10: locked when the attempt is to begin, and again when the result is to be stored: one attempt, one result."""
    path = settings.directory / "ml-server.db"

    async def locked(other: sqlite3.Connection) -> None:
        other.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.6)  # several tries
        other.execute("ROLLBACK")

    async def run() -> None:
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

    asyncio.run(run())
    job = store.get("a")
    assert (job.state, job.attempt, len(Work.running)) == (JobState.COMPLETED, 1, 1)
    assert store.result("a") is not None


@pytest.mark.parametrize("answer", [500, 0], ids=["fails", "hangs"])
def test_w4_progress_that_is_never_taken_holds_up_no_end(settings, store, answer, monkeypatch):
    """W4: progress fails ever so often, or a try of it hangs: the end is there at once."""
    monkeypatch.setattr(sender_module, "MIN_INTERVAL_S", 0.01)
    hasty = settings.model_copy(update={"heartbeat_s": 0.02})
    tries = 2 * BREAKER_FAILURES if answer else 1

    async def run(backend: Backend) -> float:
        store.submit(waiting("b", f"{backend.url}/result"))
        store.admit()
        task = driven(hasty, "b")
        await until(lambda: len(backend.of("b")) >= min(tries, BREAKER_FAILURES))
        await until(lambda: store.get("b").sequence >= tries)
        ending = time.monotonic()
        Work.done.set()
        await ended(task)
        return ending

    with Backend(lambda new, _: 200 if new.ended else answer) as backend:
        ending = asyncio.run(run(backend))
        [end] = [got for got in backend.of("b") if got.ended]
    assert end.at - ending < 8  # 20 where a try in flight is waited for, 30 where its failures count for the end's
