"""The machine's clock is moved by an hour: over both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve_app.callbacks.retry_schedule import GIVE_UP_AFTER_S
from serve_app.storage.clock_jumps import LONGEST_WAIT_AT_START_S, ClockJumpDetector, shift_back, shorten_waits
from serve_app.storage.outbox import BREAKER_FAILURES
from tests.support.clocks import Clock
from tests.support.jobs import BROKEN, CALLBACK_URL, attempt_of, new_job
from tests.support.stores import fail, stores

if TYPE_CHECKING:
    from serve_app.orchestration.opening import Stores
    from serve_app.storage.outbox import Outbox

HOUR_S = 3600.0


@pytest.fixture
def store(database, clock):
    return stores(database, queue_limit=9, running_limit=1, clock=clock)


def submit(store: Stores, job_id: str) -> None:
    assert store.jobs.submit_job(new_job(job_id, CALLBACK_URL)).started


def ended(store: Stores, job_id: str) -> str:
    """A job that has failed; the callback that is owed."""
    submit(store, job_id)
    store.queue.admit_jobs()
    ending = store.attempts.finish_job(attempt_of(store, job_id, 0), BROKEN)
    assert ending is not None
    assert ending.callback_id is not None
    return ending.callback_id


def claim_and_fail(outbox: Outbox, callback_id: str) -> None:
    fail(outbox, outbox.claim(callback_id), error="http_500")


def test_d10_callbacks_keep_their_schedule_when_the_clock_is_set_back(store, outbox, clock, database):
    """D10: an hour back: what is due stays due, what waits for its next try waits no longer than before."""
    due, tried, claimed = (ended(store, job_id) for job_id in "abc")
    for _ in range(3):
        claim_and_fail(outbox, tried)
        clock.now += {1: 1, 2: 5}.get(outbox.status("b").attempts, 0)
    assert outbox.claim(claimed) is not None
    clock.now -= HOUR_S
    assert outbox.due(10) == []
    shift_back(database, HOUR_S, clock)
    clock.now += 1
    assert [row[:2] for row in outbox.due(10)] == [(due, "a")]
    clock.now += 28
    assert {callback_id for callback_id, *_ in outbox.due(10)} == {due}
    clock.now += 2
    assert {callback_id for callback_id, *_ in outbox.due(10)} == {due, tried, claimed}


def test_d10_the_72_hours_are_72_hours(store, outbox, clock, database):
    """D10: giving up is measured from when the callback fell due, by the clock of now."""
    callback_id = ended(store, "a")
    clock.now -= HOUR_S
    shift_back(database, HOUR_S, clock)
    clock.now += GIVE_UP_AFTER_S - 60
    claim_and_fail(outbox, callback_id)
    assert outbox.status("a").state == "pending"
    clock.now += 1800
    claim_and_fail(outbox, callback_id)
    assert outbox.status("a").state == "undelivered"


def test_d10_a_failing_receiver_is_probed_in_time(outbox, clock, database):
    """D10: the half minute between probes does not become an hour."""
    for _ in range(BREAKER_FAILURES):
        outbox.breaker.record_failure("http://b")
    clock.now -= HOUR_S
    shift_back(database, HOUR_S, clock)
    clock.now += 30
    assert outbox.breaker.acquire("http://b").granted


def test_d10_the_queue_keeps_its_order_and_is_told_of(store, clock, database):
    """D10: who waits is not overtaken by who comes after the clock was set back, and heartbeats go on."""
    for job_id in "abc":
        submit(store, job_id)
        clock.now += 1
    clock.now -= HOUR_S
    submit(store, "d")
    assert store.jobs.queue_position(store.jobs.fetch_job("d")) == 1
    shift_back(database, HOUR_S, clock)
    assert [store.jobs.queue_position(store.jobs.fetch_job(job_id)) for job_id in "abcd"] == [1, 2, 3, 4]
    clock.now += 26
    assert {job.job_id for job in store.queue.take_due_heartbeats(since_s=25)} == set("abcd")


def test_d10_heartbeats_go_on_although_nobody_noticed(store, clock):
    """D10: the clock was set back while no manager lived: waiting jobs are told of at once, then as ever."""
    submit(store, "a")
    clock.now -= HOUR_S
    assert [job.job_id for job in store.queue.take_due_heartbeats(since_s=25)] == ["a"]
    assert store.queue.take_due_heartbeats(since_s=25) == []
    clock.now += 26
    assert [job.job_id for job in store.queue.take_due_heartbeats(since_s=25)] == ["a"]


def test_d10_a_new_manager_lets_no_callback_wait_long(store, outbox, clock, database):
    """D10: the clock was set back while no manager lived: at most five minutes from its start on."""
    callback_id = ended(store, "a")
    clock.now -= HOUR_S
    shorten_waits(database, clock)
    clock.now += LONGEST_WAIT_AT_START_S - 1
    assert outbox.due(1) == []
    clock.now += 1
    assert [row[:2] for row in outbox.due(1)] == [(callback_id, "a")]


def test_d10_nothing_runs_late_when_the_clock_is_set_forward(store, outbox, clock):
    """D10: an hour forward: everything is due, at most early; jobs stay as they are."""
    callback_id = ended(store, "a")
    claim_and_fail(outbox, callback_id)
    submit(store, "b")
    clock.now += HOUR_S
    assert [row[:2] for row in outbox.due(1)] == [(callback_id, "a")]
    assert [job.job_id for job in store.queue.take_due_heartbeats(since_s=25)] == ["b"]
    assert [job.job_id for job in store.queue.admit_jobs()] == ["b"]


def test_a_clock_that_is_set_back_is_noticed():
    """By how much, once; neither time that passes, nor a step forward, nor a small correction."""
    wall, steady = Clock(), Clock()
    watched = ClockJumpDetector(wall, steady)
    wall.now += 100
    steady.now += 100
    assert watched.set_back_s() == 0
    wall.now -= HOUR_S
    assert watched.set_back_s() == pytest.approx(HOUR_S)
    assert watched.set_back_s() == 0
    wall.now += HOUR_S
    assert watched.set_back_s() == 0
    wall.now -= 1
    assert watched.set_back_s() == 0
