"""What the server does for its console: files, lists and the stream of changes. No browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from serve_app.api import event_stream, pages, proxy_guard
from serve_app.jobs.job import Outcome
from serve_app.jobs.stages import Stage
from serve_app.storage.database import Database
from serve_app.warning_sentences import SENTENCES
from tests.support.console_world import World, a_talk
from tests.support.live_server import serving
from tests.support.pages import ROOT
from tests.support.process import until
from tests.support.stores import set_draining

FILES = Path(str(pages.CONSOLE_FILES))
JOBS = "/api/upload-video/jobs"
EVENTS = f"{JOBS}/events"


@pytest.fixture
def database_url(sqlite_url):
    """On SQLite; `board` is tried on both below."""
    return sqlite_url


@pytest.fixture
def world(database):
    return World(database)


@pytest.fixture
def http(world):
    return TestClient(world.app, follow_redirects=False)


def test_e1_the_console_is_there_unless_it_is_not_wanted(world, database, http):
    """E1: /console leads to the page, whose parts come with their types; `console: false` takes it all away."""
    moved = http.get("/console")
    assert (moved.status_code, moved.headers["location"]) == (307, "console/")
    kinds = {"": "text/html", "main.js": "javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        answer = http.get(f"/console/{name}")
        assert (answer.status_code, kind in answer.headers["content-type"]) == (200, True), name
    assert http.head("/console/").status_code == 200
    bare = TestClient(World(database, console=False).app)
    assert [bare.get(path).status_code for path in ("/console", "/console/", "/console/main.js")] == [404] * 3


def test_e1_the_warnings_sentences_are_the_servers(http):
    """E1: the page has all of them, in both languages, from the table that the server writes them with."""
    answer = http.get("/console/sentences.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    head, _, table = answer.text.rstrip(";\n").partition(" = ")
    assert (head, json.loads(table)) == ("export const SENTENCES", SENTENCES)


@pytest.mark.parametrize(
    ("script", "rule"),
    [
        ("const unused = 1;\n", "no-unused-vars"),
        ("export const broken = () => nowhere();\n", "no-undef"),
        ('import { t } from "./none.js";\n', "no-unused-vars"),
        ("export const fine = (a) => a;\n", None),
    ],
)
def test_the_linter_of_make_check_finds_mistakes_in_scripts(script, rule, tmp_path):
    """`make check` fails on a variable that is not used or not defined: oxlint with the project's own configuration."""
    (tmp_path / "script.js").write_text(script, encoding="utf-8")
    oxlint = [Path(sys.executable).with_name("oxlint"), "--config", ROOT / ".oxlintrc.json", tmp_path]
    found = subprocess.run(oxlint, capture_output=True, text=True, check=False)
    assert found.returncode == (1 if rule else 0)
    assert rule is None or rule in found.stdout


def test_e1_the_page_may_do_little(http):
    """E1: scripts and styles of this server only, none inside the page; kept, but asked for again each time."""
    for path in ("/console/", "/console/main.js"):
        headers = http.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
        assert (policy["frame-ancestors"], policy["form-action"], policy["trusted-types"]) == ("'none'",) * 3
        assert headers["x-content-type-options"] == "nosniff"
        assert headers.get_list("cache-control") == ["no-cache"]
        again = http.get(path, headers={"If-None-Match": headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == headers["content-security-policy"]
    assert b"if-none-match" in proxy_guard.PASSED
    page = (FILES / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page)


@pytest.mark.parametrize(
    "place", ["../settings.py", "%2e%2e/settings.py", "..%2fsettings.py", "vendor", "//etc/passwd", "x"]
)
def test_e1_nothing_else_is_served(world, place):
    """E1: no way out of the folder, no listing, and what is not there is a refusal in the contract's form."""
    with serving(world.app) as url:
        host, port = url.removeprefix("http://").split(":")
        line = HTTPConnection(host, int(port), timeout=10)
        line.request("GET", f"/console/{place}")  # as it is: no client that tidies paths
        answer = line.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (404, "NOT_FOUND")
        line.close()


def test_e1_the_files_want_no_key_and_the_api_does(database):
    """E1: with keys the page still loads, to ask for one; nothing that looks like its path gets further."""
    http = TestClient(World(database, auth={"mode": "keys"}).app)
    assert http.get("/console/main.js").status_code == 200
    for path in (JOBS, EVENTS, "/consolex"):
        assert http.get(path).status_code == 401, path
    assert http.get("/console/%2e%2e/api/upload-video/jobs").status_code == 404
    elsewhere = TestClient(World(database, auth={"networks": ["10.0.0.0/8"]}).app)
    assert elsewhere.get("/console/").status_code == 403


def test_e1_the_console_is_small_and_needs_nobody():
    """E1: under 300 kB in all, nothing from another host, and what is not ours has its licence beside it."""
    files = [path for path in FILES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        if path.suffix in {".js", ".css", ".html"} and path.parent == FILES:
            elsewhere = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text())) - {"//www.w3.org"}
            assert not elsewhere, path
    assert {path.name for path in (FILES / "vendor").iterdir()} == {"preact-htm.js", "LICENSE-preact", "LICENSE-htm"}


def test_e1_a_list_tells_how_each_job_went(world, http):
    """E1: stage, attempt, place in the queue, durations, warnings and callback of each job of a page."""
    world.populate(words=30)
    jobs = {job["job_id"]: job for job in http.get(JOBS).json()["jobs"]}
    done = jobs["completed"]
    assert (done["stage"], done["run"], done["attempt"], done["warnings"], done["callback"]) == (
        "done",
        1,
        1,
        1,
        "pending",
    )
    assert (done["duration"], done["processing_time"]) == (pytest.approx(12, abs=3), 38.4)
    assert (jobs["failed"]["stage"], jobs["failed"]["duration"], jobs["failed"]["callback"]) == (
        "starting",
        None,
        "none",
    )
    assert (jobs["running"]["stage"], jobs["running"]["callback"]) == ("diarization", "none")
    assert [jobs[f"waiting-{n}"]["queue_position"] for n in (1, 2, 3)] == [1, 2, 3]
    assert [job["job_id"] for job in http.get(JOBS, params={"state": "failed"}).json()["jobs"]] == ["failed"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_e1_what_changed_is_found_by_its_events(kind, request):
    """E1: all that lives, what ended since, what became of its callback; and nothing old. On both databases."""
    database = Database(request.getfixturevalue(f"{kind}_url"))
    database.create()
    world = World(database)
    world.store_many(300)
    attempt = world.populate(words=10)
    board = world.store.jobs.job_list
    newest, _ = board.changes(None)
    later, lines = board.changes(newest + event_stream.BEHIND)
    live = {"running", "waiting-1", "waiting-2", "waiting-3"}
    assert (later, {line.job.job_id for line in lines}) == (newest, live)
    world.store.attempts.finish_job(attempt, Outcome(error_code="X", error_message="no"))
    newest, lines = board.changes(newest)
    assert {"running"} | live == {line.job.job_id for line in lines} - {"completed", "failed"}
    assert newest > later
    database.close()


@pytest.mark.parametrize("kind", ["sqlite_url", "postgresql_url"])
def test_e1_jobs_whose_end_is_owed_are_found(request, kind):
    """E1: by the state of the newest callback, of ended jobs only: an alert leads there."""
    database = Database(request.getfixturevalue(kind))
    database.create()
    world = World(database)
    world.populate(words=5)
    world.ago_s = 7200
    world.outbox.give_up(world.outbox.claim(world.run("given-up", a_talk(5))), error="http_410")
    http = TestClient(world.app)

    def listed(callback):
        return [job["job_id"] for job in http.get(JOBS, params={"callback": callback}).json()["jobs"]]

    assert [listed(state) for state in ("pending", "undelivered", "delivered")] == [["completed"], ["given-up"], []]
    assert http.get(JOBS, params={"callback": "lost"}).status_code == 400
    database.close()


@contextmanager
def listening(url, **options):
    """The events that come, as (name, data), and their stream's end as None."""
    heard = []
    ready = threading.Event()

    def listen():
        with httpx.stream("GET", url + EVENTS, trust_env=False, timeout=30, **options) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            name = None
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                if line.startswith("data: "):
                    heard.append((name, json.loads(line.removeprefix("data: "))))
                ready.set()
        heard.append(None)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert ready.wait(10)
        yield heard
    finally:
        thread.join(timeout=30)


@pytest.fixture
def quick(monkeypatch):
    """A look every 50 ms, and streams of three seconds."""
    monkeypatch.setattr(event_stream, "POLL_S", 0.05)
    monkeypatch.setattr(event_stream, "STREAM_S", 3.0)


def test_e1_changes_come_as_they_happen(world, quick):
    """E1: `open`, then each change once and nothing that stayed as it was; the stream ends by itself."""
    attempt = world.populate(words=10)
    with serving(world.app) as url, listening(url) as heard:
        assert heard[0] == ("open", {})
        world.tell(attempt, 60, Stage.TRANSCRIPTION)
        until(lambda: len(heard) > 1, within_s=10)
        world.store.attempts.finish_job(attempt, Outcome(error_code="X", error_message="no"))
        until(lambda: heard[-1] is None, within_s=10)
    told = [(job["job_id"], job["status"], job["stage"], job["progress"]) for _, job in heard[1:-1]]
    assert told == [("running", "processing", "transcription", 60), ("running", "failed", "transcription", 60)]
    assert "secret" not in json.dumps(heard)


def test_e1_many_listeners_cost_one_look(world, quick, monkeypatch):
    """E1: listeners share the question; one too many is told when to come again; without listeners nobody asks."""
    monkeypatch.setattr(event_stream, "LISTENERS", 3)
    monkeypatch.setattr(event_stream, "STREAM_S", 20.0)
    looks = []
    changes = world.store.jobs.job_list.changes
    monkeypatch.setattr(world.store.jobs.job_list, "changes", lambda since: looks.append(since) or changes(since))
    with serving(world.app) as url, ExitStack() as all_of_them:
        began = time.monotonic()
        for _ in range(3):
            all_of_them.enter_context(listening(url))
        refused = httpx.get(url + EVENTS, trust_env=False)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "15")
        set_draining(world.database, draining=True)  # ends the streams
        all_of_them.close()
        set_draining(world.database, draining=False)
        assert len(looks) <= 2 + (time.monotonic() - began) / event_stream.POLL_S
        time.sleep(0.15)
        before = len(looks)
        time.sleep(0.3)
        assert len(looks) == before
        monkeypatch.setattr(event_stream, "STREAM_S", 0.5)
        with listening(url) as heard:
            pass
        assert heard == [("open", {}), None]


def test_e1_a_server_that_stops_ends_the_streams(world, quick, monkeypatch):
    """E1: when the server drains no stream holds it up, and none begins."""
    monkeypatch.setattr(event_stream, "STREAM_S", 20.0)
    with serving(world.app) as url:
        with listening(url) as heard:
            began = time.monotonic()
            set_draining(world.database, draining=True)
            until(lambda: heard[-1] is None, within_s=10)
            assert time.monotonic() - began < 2
        assert httpx.get(url + EVENTS, trust_env=False).status_code == 503


def test_e1_a_listener_that_leaves_is_forgotten(world, quick, monkeypatch):
    """E1: a connection that is closed frees its place."""
    monkeypatch.setattr(event_stream, "LISTENERS", 1)
    monkeypatch.setattr(event_stream, "STREAM_S", 20.0)
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.1)
    with serving(world.app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        with client.stream("GET", EVENTS) as answer:
            assert answer.status_code == 200
            assert client.get(EVENTS).status_code == 503

        def taken():
            with client.stream("GET", EVENTS) as answer:
                return answer.status_code == 200

        until(taken, within_s=10)
