"""The drain flag and the callback numbers of deleted jobs, beside processes of the release before."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text, update

from serve_app.jobs.job import JobOptions, NewJob, Outcome
from serve_app.storage import server_state
from serve_app.storage.tables import leases
from tests.support.jobs import attempt_of
from tests.support.stores import stores

OLD_READ = "SELECT beats FROM leases WHERE name = 'sequence'"
"""How a process of the release before finds a new job's number."""


@pytest.fixture
def store(database):
    return stores(database, queue_limit=3, running_limit=2)


def ended(store, job_id: str, told: int) -> int:
    """A job that ended after so many calls; its highest number."""
    new = {"video_url": "https://v/1.mp4", "video_expires_at": 2e9, "callback_url": "http://b", "fingerprint": "f"}
    store.jobs.submit_job(NewJob(job_id=job_id, options=JobOptions(), **new))
    store.queue.admit_jobs()
    for _ in range(told):
        store.queue.take_due_heartbeats(since_s=-100)
    store.attempts.finish_job(attempt_of(store, job_id, 0), Outcome(error_code="X", error_message="x"))
    return store.jobs.fetch_job(job_id).sequence


def test_numbers_rise_whichever_release_deletes(store, database):
    """During a `serve deploy` old and new replicas delete and take jobs: an id never gets a number that was used."""
    number = ended(store, "a", told=3)
    assert number > 3
    assert store.jobs.delete_job("a")
    with database.read() as db:
        assert db.execute(text(OLD_READ)).scalar_one() == number
    with database.write() as db:  # an old replica deletes one that came further
        db.execute(update(leases).where(leases.c.name == "sequence").values(beats=number + 5))
    assert ended(store, "a", told=0) == number + 6
    assert store.jobs.delete_job("a")
    with database.read() as db:
        assert db.execute(text(OLD_READ)).scalar_one() == server_state.deleted_sequence(db) == number + 6


def test_a_lower_number_changes_nothing(store, database):
    """The number is the highest of any job that was deleted."""
    first, last = ended(store, "a", told=5), ended(store, "b", told=0)
    assert last < first
    store.jobs.delete_job("a")
    store.jobs.delete_job("b")
    with database.read() as db:
        assert server_state.deleted_sequence(db) == first
        assert db.execute(select(server_state.server_state)).all() == [(1, False, first, 0.0)]


def test_d14_the_later_start_is_the_later_one_whatever_the_clock_says(database, monkeypatch):
    """D14: a clock that is set back between two deployments leaves the old manager no say."""
    first = server_state.note_start(database)
    monkeypatch.setattr(server_state.time, "time", lambda: first - 3600)
    assert server_state.note_start(database) > first
    monkeypatch.undo()
    assert server_state.note_start(database) >= first + 2
