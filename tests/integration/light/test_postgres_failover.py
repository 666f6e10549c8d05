"""D10 with PostgreSQL: the server starts anew, or its standby takes over, while jobs come, run and end."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from serve_app.jobs.job import CallbackState
from serve_app.jobs.states import JobState
from serve_app.orchestration import job_supervisor, manager
from serve_app.orchestration.attempt import until_stored
from serve_app.orchestration.opening import open_stores
from serve_app.storage.database import Database, open_database
from tests.support import postgres
from tests.support.backend import Backend
from tests.support.edge import edge
from tests.support.jobs import DONE, new_job
from tests.support.managers import ScriptedDrivers, running_manager, settings_in, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.jobs.job import Attempt
    from serve_app.orchestration.opening import Stores
    from serve_app.settings import Settings

VIDEO = "https://videos.example.com/v.mp4"
JOBS = 150
BEFORE = 30
"""Ends that the backend has heard of when the server goes away: by then jobs wait, run and end."""
CLIENTS = 3
ANSWER_S = 30
"""Five seconds are promised; a machine that is busy otherwise gets more. Without a limit no answer would ever come."""
SEPARATE_S = 1.0
"""For so long the standby gets nothing before the primary dies: what was acknowledged meanwhile would be lost."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(manager, "TURN_S", 0.05)
    monkeypatch.setattr(job_supervisor, "STARTS_AT_ONCE", 4)


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, running_jobs=10, queued_jobs=JOBS, prefetches=0)


@pytest.fixture
def pair():
    postgres.require()
    with postgres.running_pair() as pair:
        yield pair


class Clients:
    """Threads that submit jobs, each again until it is acknowledged."""

    def __init__(self, store: Stores, callback_url: str) -> None:
        self._store = store
        self._callback_url = callback_url
        self.acknowledged: list[tuple[float, str]] = []

    def submit(self, job_id: str) -> None:
        while True:
            try:
                submission = self._store.jobs.submit_job(new_job(job_id, self._callback_url))
            except SQLAlchemyError:
                time.sleep(0.1)
                continue
            assert submission.job is not None
            self.acknowledged.append((time.monotonic(), job_id))
            time.sleep(0.1)
            return

    @property
    def longest_wait_s(self) -> float:
        """Between two jobs that were acknowledged."""
        return max(later - earlier for (earlier, _), (later, _) in pairwise(sorted(self.acknowledged)))


def ends_told(backend: Backend) -> set[tuple[str, str]]:
    """Jobs and the ids of their terminal callbacks."""
    return {(post.job_id, post.message_id) for post in backend.received if post.ended}


async def works(store: Stores, attempt: Attempt) -> None:
    await asyncio.sleep(0.1)
    await until_stored(attempt.job_id, partial(store.attempts.finish_job, attempt, DONE))


async def work_through(settings: Settings, fault: Callable[[], None]) -> None:
    """Have jobs submitted, run and told, with the fault in the middle; every one ends once, and is told once."""
    database = open_database(settings)
    store = open_stores(settings, database)
    ids = [f"job-{number}" for number in range(JOBS)]
    with Backend() as backend, ThreadPoolExecutor(CLIENTS) as threads:
        clients = Clients(store, f"{backend.url}/result")
        async with running_manager(settings, ScriptedDrivers(store, works)):
            submitted = [threads.submit(clients.submit, job_id) for job_id in ids]
            await until(lambda: len(ends_told(backend)) >= BEFORE)
            assert len(clients.acknowledged) < JOBS
            await asyncio.to_thread(fault)
            back = time.monotonic()
            await until(lambda: all(post.done() for post in submitted))
            assert [job_id for job_id in ids if store.jobs.fetch_job(job_id) is None] == []
            await until(lambda: {job_id for job_id, _ in ends_told(backend)} == set(ids))
            await until(lambda: all(store.outbox.status(job_id).state is CallbackState.DELIVERED for job_id in ids))
            print(f"{clients.longest_wait_s:.1f} s without an answer; all told {time.monotonic() - back:.1f} s after")
        assert [post.exception() for post in submitted if post.exception()] == []
        assert {job_id for _, job_id in clients.acknowledged} == set(ids)
        assert {store.jobs.fetch_job(job_id).state for job_id in ids} == {JobState.COMPLETED}
        assert len(ends_told(backend)) == JOBS, "an end has two ids"
        assert clients.longest_wait_s < 60
    database.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_d10_postgresql_starts_anew_under_load(settings, postgres_server, mode):
    """D10: what was acknowledged is there after a stop, and after a crash; every job ends once and is told once."""
    with postgres_server.database(synchronous_commit="off") as url:
        there = settings.model_copy(update={"database_url": SecretStr(url)})
        asyncio.run(work_through(there, partial(postgres_server.restart, mode)))


def test_d10_a_synchronous_standby_takes_over_under_load(settings, pair):
    """D10: the primary is killed, its standby promoted: no acknowledged job or end is lost, none is told twice."""

    def fail_over() -> None:
        pair.separate()
        time.sleep(SEPARATE_S)
        pair.primary.kill()
        pair.promote()

    there = settings.model_copy(update={"database_url": SecretStr(pair.url(postgres.USER))})
    asyncio.run(work_through(there, fail_over))


def test_d10_without_its_standby_the_primary_takes_nothing(settings, pair):
    """D10: POSTs are refused in time while no standby has what they wrote; once it is back all goes on by itself."""
    database = Database(pair.url(postgres.USER))
    database.create()
    http = TestClient(edge(settings, database, open_stores(settings, database)), raise_server_exceptions=False)

    def answer(job_id: str) -> int:
        began = time.monotonic()
        content = {"job_id": job_id, "video_url": VIDEO, "fastapi_base_url": "http://127.0.0.1:9"}
        status = http.post("/api/upload-video/process-video", json=content).status_code
        assert time.monotonic() - began < ANSWER_S
        return status

    assert answer("before") == 200
    pair.separate()
    assert [answer(job_id) for job_id in ("during", "waits")] == [503, 503]
    pair.join()
    deadline = time.monotonic() + 60
    while (status := answer("during")) != 200:
        assert (status, time.monotonic() < deadline) == (503, True)
    assert answer("after") == 200
    database.close()
