"""The database is locked, full, unreadable or down: what the HTTP edge answers, and that nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from serve_app.jobs.job import CallbackState, Outcome
from serve_app.jobs.states import JobState
from serve_app.orchestration.attempt import until_stored
from serve_app.settings import Settings
from serve_app.storage import database as database_module
from serve_app.storage.database import BUSY_TIMEOUT_S, Database
from serve_app.storage.outbox import Outbox
from tests.support.edge import edge as edge_over
from tests.support.jobs import DONE, attempt_of, begin, started
from tests.support.stores import stores

if TYPE_CHECKING:
    from collections.abc import Iterator

POST = "/api/upload-video/process-video"
STATUS = "/api/upload-video/status"
VIDEO = "http://127.0.0.1:9000/v.mp4"
BACKEND = "http://127.0.0.1:8000"
LOCAL = {
    "profile": "local",
    "extractor": {"net": {"schemes": ["http"], "ports": "*", "networks": ["127.0.0.0/8"]}},
    "callbacks": {"origins": [f"{BACKEND}"], "networks": ["127.0.0.0/8"]},
    "limits": {"queued_jobs": 1000},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 1)


@pytest.fixture(params=["locked", "full", "unreadable", "postgresql locked", "postgresql down"])
def trouble(request, tmp_path):
    """The URL of a database, and a context in which it is away."""
    if not request.param.startswith("postgresql"):
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        yield url, {"locked": sqlite_locked, "full": sqlite_full, "unreadable": sqlite_unreadable}[request.param]
        return
    server = request.getfixturevalue("postgres_server")
    with server.database() as url:
        away = postgresql_locked if request.param.endswith("locked") else lambda _: server.away(url)
        yield url, away


@contextmanager
def sqlite_locked(database: Database) -> Iterator[None]:
    """Another program, which knows nothing of our line, has begun a transaction."""
    with closing(sqlite3.connect(path_of(database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def sqlite_full(database: Database) -> Iterator[None]:
    """SQLite's own limit: to a writer the same error as that of a full disk."""
    limit_pages(database, 1)  # means: no more than there are
    yield
    limit_pages(database, 1_000_000)


def limit_pages(database: Database, most: int) -> None:
    with database.write() as db:
        db.exec_driver_sql(f"PRAGMA max_page_count={most}")


@contextmanager
def sqlite_unreadable(database: Database) -> Iterator[None]:
    """Nobody can open the file."""
    database.close()
    path = path_of(database)
    hidden = path.rename(path.with_suffix(".hidden"))
    path.mkdir()
    yield
    path.rmdir()
    hidden.rename(path)


@contextmanager
def postgresql_locked(database: Database) -> Iterator[None]:
    with database.write(admission=True):
        yield


def path_of(database: Database) -> Path:
    return Path(str(make_url(str(database._engine.url)).database))


def submitted(http: TestClient, job_id: str, *, padding: str = "", within_s: float = 5) -> int:
    """The answer to a POST, which comes in time whatever it is; a refusal says when to come back, and nothing else."""
    fields = {"job_id": job_id, "video_url": f"{VIDEO}?{padding}", "fastapi_base_url": BACKEND}
    began = time.monotonic()
    answer = http.post(POST, json=fields)
    assert time.monotonic() - began < within_s
    if answer.status_code != 200:
        assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code


def test_d10_the_database_is_away_and_comes_back(trouble):
    """D10: intake answers 503 with Retry-After; what was stored is there afterwards, and all goes on by itself."""
    url, away = trouble
    settings = Settings(**LOCAL)
    database = Database(url)
    database.create()
    store = stores(database, queue_limit=1000, running_limit=1)
    outbox = Outbox(database)
    http = TestClient(edge_over(settings, database, store, outbox), raise_server_exceptions=False)
    assert submitted(http, "before") == 200
    store.queue.admit_jobs()
    assert begin(store, "before") is not None
    attempt = attempt_of(store, "before", 1)
    taken = ["before"]
    with away(database):
        for i in range(40):  # a full database may have room for some
            if submitted(http, f"during-{i}", padding="x" * 8000) != 200:
                break
            taken.append(f"during-{i}")
        assert i < 39
        with pytest.raises(SQLAlchemyError):
            store.attempts.finish_job(attempt, Outcome(result=b"x" * 100_000))
        assert http.get("/health").status_code in {200, 503}
    assert submitted(http, f"during-{i}") == 200
    assert store.jobs.fetch_job("before").state is JobState.RUNNING
    ending = store.attempts.finish_job(attempt, DONE)
    assert store.jobs.fetch_result("before") == DONE.result
    assert outbox.claim(ending.callback_id) is not None
    assert outbox.status("before").state is CallbackState.PENDING
    for job_id in taken:
        assert http.get(f"{STATUS}/{job_id}").status_code == 200
    assert store.jobs.count_jobs().queued == len(taken)
    database.close()


POSTS = 3


@pytest.mark.parametrize(("held_s", "first_answer"), [(1, 200), (6, 503)])
def test_d10_another_program_holds_sqlite_for_a_while(tmp_path, monkeypatch, held_s, first_answer):
    """D10: shorter than the server waits, and nobody notices; longer, and POSTs are refused in time, an end waits."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", BUSY_TIMEOUT_S)
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    store = stores(database, queue_limit=1000, running_limit=1)
    attempt = started(store, "ends")
    http = TestClient(edge_over(Settings(**LOCAL), database, store), raise_server_exceptions=False)

    def post_until_taken(job_id: str) -> list[int]:
        answers = [submitted(http, job_id, within_s=20)]  # five are promised; another program may keep us busy, too
        while answers[-1] != 200:
            answers.append(submitted(http, job_id, within_s=20))
        return answers

    with ThreadPoolExecutor() as threads:
        with sqlite_locked(database):
            posts = {f"job-{i}": threads.submit(post_until_taken, f"job-{i}") for i in range(POSTS)}
            end = until_stored("ends", partial(store.attempts.finish_job, attempt, DONE))
            ending = threads.submit(asyncio.run, end)
            assert http.get(f"{STATUS}/ends").json()["status"] == "processing"
            time.sleep(held_s)
        assert [post.result()[0] for post in posts.values()] == [first_answer] * POSTS
        assert ending.result() is not None
    assert store.jobs.fetch_result("ends") == DONE.result
    assert [store.jobs.fetch_job(job_id).run for job_id in posts] == [1] * POSTS
    assert store.jobs.count_jobs().queued == POSTS
    database.close()
