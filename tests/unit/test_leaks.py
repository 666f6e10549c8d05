"""M7: the scan over the whole suite sees what it is there for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import update

from serve_app.jobs.job import CallbackExtras, Outcome
from serve_app.storage.database import Database
from serve_app.storage.tables import jobs
from tests.support.jobs import new_job
from tests.support.leaks import CALLBACK_HEADERS, ROOT, Watch
from tests.support.sources import SECRET
from tests.support.stores import stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve_app.orchestration.opening import Stores

URL = f"http://h/v.mp4?{SECRET}"
LEAKS = (
    URL,
    "Traceback (most recent call last):",
    f"{ROOT}/serve_app/app.py",
    *CALLBACK_HEADERS,
    *CALLBACK_HEADERS.values(),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """As a server has it in its folder."""
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    yield database
    database.close()


def submitted(database: Database) -> Stores:
    store = stores(database, queue_limit=3, running_limit=2)
    extras = CallbackExtras(headers=CALLBACK_HEADERS)
    store.jobs.submit_job(new_job(callback_url="http://backend/x", video_url=URL, extras=extras))
    return store


def kinds(watch: Watch) -> list[str]:
    return [found.split(": …")[0] for found in watch.found]


def test_m7_an_honest_server_passes(tmp_path: Path, database: Database) -> None:
    """M7: a clean log, a job with its URL while it waits, and without it afterwards; its headers go to its backend."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ml-server.jsonl").write_text(json.dumps({"message": "job ended"}))
    store, watch = submitted(database), Watch()
    watch.left(tmp_path)
    store.jobs.cancel_job("a", Outcome(error_code="CANCELLED", error_message="cancelled"))
    watch.left(tmp_path)
    watch.callback("/x", {"webhook-id": "m", **CALLBACK_HEADERS}, b"{}")
    assert watch.found == []
    assert watch.looked_at["log"] == 2
    assert watch.looked_at["value"] > 20


@pytest.mark.parametrize("leak", LEAKS)
def test_m7_whatever_holds_a_leak_is_found(leak: str, tmp_path: Path, database: Database) -> None:
    """M7: a log, a row's error, a result, an event, a callback, an answer."""
    (tmp_path / "up.log").write_text(f"it is {leak}\n")
    store, watch = submitted(database), Watch()
    store.jobs.cancel_job("a", Outcome(error_code=leak, error_message=leak))
    watch.left(tmp_path)
    assert set(kinds(watch)) == {
        "log up.log",
        "value jobs.error_code",
        "value jobs.error_message",
        "value events.detail",
        "value callbacks.body",
    }
    watch = Watch()
    watch.callback("/x", {}, json.dumps({"error_message": leak}).encode())
    transport = httpx.MockTransport(lambda _: httpx.Response(500, json={"message": leak}))
    with httpx.Client(transport=transport, event_hooks={"response": [watch.answer]}) as client:
        client.get("http://h/health")
    assert set(kinds(watch)) == {"callback /x", "answer GET /health 500"}


def test_m7_an_ended_job_that_kept_its_url_is_found(tmp_path: Path, database: Database) -> None:
    """M7: the URL of an ended job is no exception."""
    store, watch = submitted(database), Watch()
    store.jobs.cancel_job("a", Outcome(error_code="CANCELLED", error_message="cancelled"))
    with database.write() as db:
        db.execute(update(jobs).values(video_url=URL))
    watch.left(tmp_path)
    assert set(kinds(watch)) == {"value jobs.video_url"}


def test_m7_rays_logs_and_metrics_are_looked_through(tmp_path: Path) -> None:
    """M7: Ray's own logs may hold tracebacks and folders, but no signed URL."""
    folder = tmp_path / "ray" / "session_2026" / "logs" / "serve"
    folder.mkdir(parents=True)
    (folder / "replica.log").write_text(f"Traceback in {ROOT}\n")
    watch = Watch()
    watch.running(tmp_path)
    assert watch.found == []
    (folder / "replica.log").write_text(f"GET {URL}\n")
    watch.running(tmp_path)
    assert set(kinds(watch)) == {"log of Ray replica.log"}
