from __future__ import annotations

import hashlib
import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from serve_app.jobs.job import JobOptions, NewJob
from serve_app.storage import migrations, server_state
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from serve_app.storage.migrations import DatabaseTooNewError
from serve_app.storage.outbox import Outbox
from serve_app.storage.tables import metadata
from tests.support import made_tables
from tests.support.jobs import begin
from tests.support.stores import set_draining, stores

pytestmark = pytest.mark.usefixtures("tables_by_alembic")
STEPS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]
BEFORE_COUNTING = STEPS[:3]
"""Only tables of these steps were ever made without their number."""


@pytest.fixture
def opened(database_url):
    database = Database(database_url)
    yield database
    database.close()


def old_database(opened, step, *, counted):
    """What a release of that step left behind: a job that waits, one that has ended, and what it owes."""
    with opened.write() as db:
        migrations.migrate(db, to=step)
        for job_id, state in (("waits", "queued"), ("ended", "completed")):
            row = dict.fromkeys(("run", "attempt", "progress", "sequence"), 1)
            row |= dict.fromkeys(("video_expires_at", "created_at", "queued_at", "told_at", "spent_s"), 5.0)
            row |= {"job_id": job_id, "state": state, "fingerprint": "f", "video_url": "https://v/1.mp4"}
            row |= {"options": json.dumps({"language": "ko"}), "stage": state, "prefetch": "none"}
            row["stage"] = "done" if state == "completed" else "queued"
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            insert = f"INSERT INTO jobs ({names}, cancel_requested) VALUES ({values}, false)"  # noqa: S608 - our own
            db.execute(text(insert), row)
        db.execute(
            text("INSERT INTO results (job_id, body, duration_s, processing_s) VALUES ('ended', :body, 1.0, 1.0)"),
            {"body": b"{}"},
        )
        db.execute(
            text(
                "INSERT INTO callbacks (id, job_id, url, sequence, body, state, attempts, due_since, next_try_at)"
                " VALUES ('msg_1', 'ended', 'http://b/result', 2, :body, 'pending', 0, 5.0, 5.0)"
            ),
            {"body": b"{}"},
        )
        if not counted:
            db.execute(text("DROP TABLE alembic_version"))


def assert_newest(database):
    with database.read() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
        assert migrations.is_newest(db)


def test_the_newest_step_is_the_last_file():
    """The number that spares processes a look into the files is theirs, and the files are one line without forks."""
    steps = ScriptDirectory(str(migrations.Path(migrations.__file__).parent))
    assert steps.get_heads() == [migrations.NEWEST]
    assert [step.revision for step in steps.walk_revisions()][::-1] == STEPS


def test_an_empty_database_gets_all_tables(opened):
    """The steps add up to the tables that the code knows, by name, type, key and index."""
    opened.create()
    assert_newest(opened)


def test_other_tests_have_the_same_tables(opened):
    """Theirs are made by the statements of the first empty database, without Alembic."""
    for _ in range(2):
        with opened.write() as db:
            made_tables.migrate(db)
        assert_newest(opened)
        with opened.write() as db:
            metadata.drop_all(db)
            db.execute(text("DROP TABLE alembic_version"))


@pytest.mark.parametrize(
    ("step", "counted"), [*((step, True) for step in STEPS), *((step, False) for step in BEFORE_COUNTING)]
)
def test_a_database_of_an_earlier_release_keeps_its_jobs(opened, step, counted):
    """From every step, and from the tables made before steps were counted: old jobs go on, old debts are paid."""
    old_database(opened, step, counted=counted)
    opened.create()
    assert_newest(opened)
    store, outbox = stores(opened, queue_limit=3, running_limit=2), Outbox(opened)
    [admitted] = store.queue.admit_jobs()
    assert admitted.job_id == "waits"
    assert admitted.options.language == "ko"
    assert begin(store, "waits").beats == 0
    assert store.jobs.fetch_result("ended") == b"{}"
    if step < "0007" or not counted:  # else the row is as a process of the release before writes it
        assert [receiver for *_, receiver in outbox.due(1)] == ["http://b"]
    assert admitted.actor_name == "job:waits"  # as its actor and its audio are named, where it has them already
    assert outbox.claim("msg_1").job_id == "ended"
    assert store.jobs.delete_job("ended")  # with all that refers to it


@pytest.mark.parametrize("draining", [True, False])
def test_0006_takes_the_servers_state_from_the_leases(opened, draining):
    """A database of step 0005, stopped by a drain or not, has its flag, numbers, jobs, callbacks and checkpoints."""
    old_database(opened, "0005", counted=True)
    rows = [("job-manager", "somebody", 7), ("sequence", "", 41), *([("drain", "", 0)] if draining else [])]
    with opened.write() as db:
        for row in rows:
            db.execute(
                text("INSERT INTO leases (name, holder, beats) VALUES (:name, :holder, :beats)"),
                dict(zip(("name", "holder", "beats"), row, strict=True)),
            )
        db.execute(
            text(
                "INSERT INTO checkpoints (job_id, run, stage, digest, body) VALUES ('waits', 1, 'vad', :digest, :body)"
            ),
            {"digest": hashlib.sha256(b"kept").hexdigest(), "body": b"kept"},
        )
        db.execute(text("INSERT INTO receivers (origin, failures, next_probe_at) VALUES ('http://b', 5, 3000000000.0)"))
    opened.create()
    assert_newest(opened)
    store = stores(opened, queue_limit=3, running_limit=2)
    with opened.read() as db:
        assert server_state.deleted_sequence(db) == 41
        assert dict(db.execute(text("SELECT name, beats FROM leases")).all()) == {"job-manager": 7, "sequence": 41}
    assert store.jobs.is_draining() is draining
    assert store.queue.admit_jobs() == [] or not draining
    assert store.jobs.submit_job(a_new_job()).draining is draining
    set_draining(opened, draining=False)
    assert store.jobs.submit_job(a_new_job()).job.sequence == 41
    assert store.jobs.fetch_job("ended").sequence == 1
    assert store.jobs.fetch_result("ended") == b"{}"
    assert store.outbox.claim("msg_1").sequence == 2
    assert not store.outbox.breaker.acquire("http://b").granted
    assert Checkpoints(opened).load("waits", "vad") == b"kept"


def a_new_job():
    new = {"video_url": "https://v/1.mp4", "video_expires_at": 2e9, "callback_url": "http://b", "fingerprint": "f"}
    return NewJob(job_id="new", options=JobOptions(), **new)


def test_an_empty_database_has_no_state(opened):
    """Step 0006 leaves the one row where there were no leases."""
    opened.create()
    with opened.read() as db:
        assert db.execute(text("SELECT id, draining, deleted_sequence FROM server_state")).all() == [(1, False, 0)]


def test_a_table_that_was_never_written_makes_way(opened):
    """An earlier commit made a timeline's table in another form."""
    old_database(opened, "0002", counted=False)
    with opened.write() as db:
        db.execute(text("CREATE TABLE events (id INTEGER PRIMARY KEY, wrong INTEGER)"))
    opened.create()
    assert_newest(opened)


def test_steps_are_taken_all_or_not_at_all(opened):
    """A step that fails, or a process that dies in it, leaves the database as it was, for the next start."""
    old_database(opened, "0001", counted=True)
    with opened.write() as db:
        db.execute(text("CREATE INDEX events_of_job ON jobs (state)"))  # in the last step's way
    with pytest.raises(DBAPIError):
        opened.create()
    with opened.read() as db:
        assert not {"checkpoints", "leases", "events"} & set(inspect(db).get_table_names())
        assert db.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
    with opened.write() as db:
        db.execute(text("DROP INDEX events_of_job"))
    opened.create()
    assert_newest(opened)


def test_a_database_of_a_later_release_is_refused(opened):
    """Rows whose meaning may have changed are not touched; the sentence says what to do."""
    opened.create()
    with opened.write() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(DatabaseTooNewError, match=r"0999.*start that release"):
        opened.create()
