from __future__ import annotations

import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from serve_app.storage import migrations
from serve_app.storage.database import Database
from serve_app.storage.job_store import JobStore
from serve_app.storage.migrations import DatabaseTooNewError
from serve_app.storage.outbox import Outbox
from serve_app.storage.tables import metadata

STEPS = ["0001", "0002", "0003", "0004", "0005"]
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
            text("INSERT INTO callbacks VALUES ('msg_1', 'ended', 'http://b', 2, :body, 'pending', 0, 5.0, 5.0, NULL)"),
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


@pytest.mark.parametrize(
    ("step", "counted"), [*((step, True) for step in STEPS), *((step, False) for step in BEFORE_COUNTING)]
)
def test_a_database_of_an_earlier_release_keeps_its_jobs(opened, step, counted):
    """From every step, and from the tables made before steps were counted: old jobs go on, old debts are paid."""
    old_database(opened, step, counted=counted)
    opened.create()
    assert_newest(opened)
    store, outbox = JobStore(opened, queue_limit=3, running_limit=2), Outbox(opened)
    [admitted] = store.admit()
    assert admitted.job_id == "waits"
    assert admitted.options.language == "ko"
    assert store.begin_attempt("waits", 1).beats == 0
    assert store.result("ended") == b"{}"
    assert outbox.claim("msg_1").job_id == "ended"
    assert store.delete("ended")  # with all that refers to it


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
