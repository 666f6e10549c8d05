from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from sqlalchemy import delete, event, text

from deployments.metrics import OTHER
from deployments.warnings import WarningCode
from serve_app.jobs.job import Attempt, Outcome
from serve_app.observability import job_metrics, metrics
from serve_app.observability.job_metrics import EVENTS_READ, JobMetrics
from serve_app.orchestration import manager
from serve_app.orchestration.job_actor import MANAGER_NAME
from serve_app.orchestration.opening import open_stores
from serve_app.settings import Limits
from serve_app.storage.database import open_database
from serve_app.storage.outbox import Outbox
from serve_app.storage.tables import events, jobs, leases
from tests.support.jobs import BROKEN, CALLBACK_URL, begun, new_job
from tests.support.managers import ScriptedDrivers, running_manager, settings_in, until
from tests.support.stores import fail, stores

BODY = {"text": "", "segments": [], "metadata": {"stages": {"extraction": 2.0, "transcription": 30.0, "/x?s=1": 1.0}}}
DONE = Outcome(result=json.dumps(BODY).encode(), duration_s=100.0, processing_s=40.0)
NOW = 1_000_000.0


class World:
    """Store, outbox and figures under one clock."""

    def __init__(self, database) -> None:
        self.now = NOW
        self.database = database
        clock = lambda: self.now  # noqa: E731
        self.store = stores(database, queue_limit=2000, running_limit=10, clock=clock)
        self.outbox = Outbox(database, clock=clock)
        self.job_metrics = JobMetrics(database, Limits(running_jobs=10, queued_jobs=20), clock)

    def submit(self, job_id="a", callback=CALLBACK_URL) -> None:
        self.store.jobs.submit_job(new_job(job_id, callback))

    def begin(self, job_id="a") -> Attempt:
        return begun(self.store, job_id)

    def end(self, job_id="a", outcome=DONE) -> str:
        self.submit(job_id)
        return self.store.attempts.finish_job(self.begin(job_id), outcome).callback_id


@pytest.fixture
def world(database, counted):
    world = World(database)
    world.job_metrics.collect()
    return world


def ended(counted, **labels):
    return counted.total("jobs_ended", **labels)


def test_each_end_is_counted_once(world, counted):
    """Completed and failed runs, with their code, whoever ended them, and however often one looks."""
    world.end("a")
    world.end("b", BROKEN)
    world.end("b", DONE)  # its second run
    world.submit("c")
    world.store.jobs.cancel_job(
        "c", Outcome(error_code="CANCELLED", error_message="no")
    )  # by a request, from the queue
    for _ in range(3):
        world.job_metrics.collect()
    assert ended(counted, state="completed", code="none") == 2
    assert ended(counted, state="failed", code="DOWNLOAD_ERROR") == 1
    assert ended(counted, state="failed", code="CANCELLED") == 1
    assert ended(counted) == 4
    world.end("d")
    world.job_metrics.collect()
    assert ended(counted) == 5


def test_what_a_job_took(world, counted):
    """Wait, stages and real-time factor of a completed job; a stage that nobody knows is `other`."""
    world.submit()
    world.now += 42
    attempt = world.begin()
    world.store.attempts.finish_job(attempt, DONE)
    world.job_metrics.collect()
    assert counted.values("queue_wait_seconds") == [42]
    assert counted.values("real_time_factor") == [0.4]
    assert counted.total("video_seconds") == 100
    assert counted.total("processing_seconds") == 40
    assert counted.values("stage_seconds", stage="extraction") == [2.0]
    assert counted.values("stage_seconds", stage="transcription") == [30.0]
    assert counted.values("stage_seconds", stage=OTHER) == [1.0]


def test_each_text_that_a_result_leaves_out_is_counted_once(world, counted):
    """By the guard or the aligner, whatever dropped it: every code that says so has its label, and no other counts."""
    found = {code for code in WarningCode if code.endswith(("_DROPPED", "_CUT"))}
    assert found - {WarningCode.VOCABULARY_CUT} == set(metrics.DROPPED_BY)
    dropped = [{"code": code, "count": 2 + at} for at, code in enumerate(metrics.DROPPED_BY)]
    warnings = [*dropped, {"code": WarningCode.SPEECH_UNCERTAIN, "seconds": 3.0}]
    body = BODY | {"metadata": {"stages": {}, "warning_codes": warnings}}
    world.end("a", replace(DONE, result=json.dumps(body).encode()))
    for _ in range(2):
        world.job_metrics.collect()
    guard = [each["count"] for each in dropped if each["code"] != WarningCode.UNHEARD_DROPPED]
    assert counted.total("dropped_texts", by="guard") == sum(guard)
    assert counted.total("dropped_texts") == sum(each["count"] for each in dropped)


def test_every_try_of_a_callback_is_counted(world, counted):
    """By what came of it and by the class of the fault: a retry, a success, a refusal for good."""
    first, second = world.end("a"), world.end("b")
    fail(world.outbox, world.outbox.claim(first), error="http_503")
    world.now += 10
    fail(world.outbox, world.outbox.claim(first), error="unreachable")
    world.now += 10
    world.outbox.mark_delivered(world.outbox.claim(first))
    world.outbox.give_up(world.outbox.claim(second), error="http_410")
    world.job_metrics.collect()
    tries = {
        ("to_be_retried", "http_5xx"): 1,
        ("to_be_retried", "unreachable"): 1,
        ("delivered", "none"): 1,
        ("given_up", "http_4xx"): 1,
    }
    for (outcome, fault), count in tries.items():
        assert counted.total("callback_tries", outcome=outcome, fault=fault) == count
    assert counted.total("callback_tries") == 4


def test_how_things_stand(world, counted):
    """Jobs by state, the queue's age, what is owed and since when; and when there is nothing, 0."""
    world.job_metrics.collect()
    for gauge in ("oldest_queued_seconds", "pending_callbacks", "oldest_undelivered_callback_seconds"):
        assert counted.last(gauge) == 0
    world.end("a")
    world.now += 5
    world.submit("b")
    world.begin("b")
    world.submit("c")
    world.now += 30
    world.job_metrics.collect()
    standing = {state: counted.last("jobs", state=state) for state in ("queued", "running", "completed", "failed")}
    assert standing == {"queued": 1, "running": 1, "completed": 1, "failed": 0}
    assert counted.last("oldest_queued_seconds") == 30
    assert counted.last("pending_callbacks") == 1
    assert counted.last("oldest_undelivered_callback_seconds") == 35
    assert counted.last("manager_seen_timestamp_seconds") == world.now
    limits = [counted.last("jobs_limit", state=state) for state in ("running", "queued")]
    assert limits == [10, 20]


def test_a_series_begins_with_0(world, counted):
    """The first failure is a rise, and so is the first callback that is not taken."""
    assert counted.values("jobs_ended", state="failed", code="INTERNAL_ERROR") == [0]
    assert counted.values("callback_tries", outcome="given_up", fault="http_4xx") == [0]
    assert counted.values("progress_tries", outcome="failed", fault="timeout") == [0]


def test_what_was_before_is_not_counted(world, counted):
    """A manager that begins, or comes back to work, counts what happens from then on, also where rows are deleted."""
    for number in range(3):
        world.end(str(number))
    world.now += 10
    later = JobMetrics(world.database, Limits(), lambda: world.now)
    later.collect()
    world.store.jobs.delete_job("2")
    later.collect()
    assert ended(counted) == 0
    world.now += 1
    world.end("new")
    later.collect()
    assert ended(counted) == 1
    later.clear()
    assert counted.last("jobs", state="completed") == 0
    world.now += 1
    world.end("meanwhile")
    world.now += 1
    later.collect()
    assert ended(counted) == 1
    assert counted.last("jobs", state="completed") == 4


def test_ids_that_come_again_are_other_events(world, counted):
    """SQLite gives the ids of deleted rows to new ones: those are counted, too."""
    for _ in range(3):
        world.now += 1
        world.end("a")
        world.job_metrics.collect()
        world.store.jobs.delete_job("a")
    assert ended(counted) == 3


def test_events_that_come_late_are_counted(world, counted):
    """A transaction that began before another may end after it: its event has the lower id."""
    world.end("a")
    world.submit("b")  # or SQLite would give the id again
    with world.database.write() as db:
        row = db.execute(events.select().where(events.c.kind == "completed")).mappings().one()
        db.execute(delete(events).where(events.c.id == row["id"]))
    world.job_metrics.collect()
    assert ended(counted) == 0
    world.end("c")
    world.job_metrics.collect()
    with world.database.write() as db:
        db.execute(events.insert().values(**row))
    world.job_metrics.collect()
    assert ended(counted) == 2


def test_a_clock_that_is_set_back_stops_no_counting(world, counted):
    """An hour back: what ends then is counted, and nothing twice."""
    world.end("a")
    world.job_metrics.collect()
    world.now -= 3600
    world.job_metrics.collect()
    world.end("b")
    world.job_metrics.collect()
    assert ended(counted) == 2


def test_a_look_is_cheap(world, counted):
    """Four questions to the database, however many jobs and events there are; each uses an index."""
    world.submit("a")
    with world.database.write() as db:
        row = dict(db.execute(jobs.select()).mappings().one())
        db.execute(jobs.insert(), [row | {"job_id": f"old-{n}", "state": "completed"} for n in range(3000)])
        known = [
            {"job_id": "a", "at": NOW - 1, "run": 1, "attempt": 0, "kind": "started"} for _ in range(3 * EVENTS_READ)
        ]
        db.execute(events.insert(), known)
    asked = []
    engine = world.database._reader
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: asked.append(statement))
    world.job_metrics.collect()
    statements = tuple(asked)
    assert len(statements) == 4
    if world.database.is_sqlite:
        with world.database.read() as db:
            for statement in statements:
                plan = str(db.execute(text("EXPLAIN QUERY PLAN " + statement.replace("?", "'queued'"))).all())
                assert "USING" in plan or plan.endswith("SCAN events')]"), plan  # these by id, the newest first


async def test_the_manager_that_works_counts(tmp_path, counted, monkeypatch):
    """What its drivers do is counted while it works; when another one works, it shows nothing of its own."""
    monkeypatch.setattr(job_metrics, "EVERY_S", 0.05)
    monkeypatch.setattr(manager, "TURN_S", 0.05)
    monkeypatch.setattr(manager, "BEAT_S", 0.1)
    settings = settings_in(tmp_path)
    store = open_stores(settings, open_database(settings))

    async def finishes(store, attempt):
        await asyncio.to_thread(store.attempts.finish_job, attempt, DONE)

    async with running_manager(settings, ScriptedDrivers(store, finishes)) as working:
        await until(lambda: counted.recorded["manager_seen_timestamp_seconds"])
        store.jobs.submit_job(new_job("a"))
        await until(lambda: ended(counted, state="completed") == 1)
        await until(lambda: counted.values("jobs", state="completed")[-1:] == [1])  # told a moment later
        with store.jobs._db.write() as db:
            db.execute(leases.update().where(leases.c.name == MANAGER_NAME).values(holder="another", beats=0))
        await until(lambda: working._leads is False)
        assert counted.last("jobs", state="completed") == 0
