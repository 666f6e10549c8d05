"""The job manager without Ray: what it does about drivers that stand still or die, and about another manager."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import AsyncExitStack, closing, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import SQLAlchemyError

from deployments.net.client import Answer, CallbackClient
from serve_app.callbacks import progress_reporter
from serve_app.callbacks.progress_reporter import ProgressReporter
from serve_app.callbacks.sender import Sender
from serve_app.jobs.job import Attempt, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState
from serve_app.orchestration import job_supervisor, manager
from serve_app.orchestration.opening import open_stores
from serve_app.storage import database as database_module
from serve_app.storage import job_queue, leases
from serve_app.storage.clock_jumps import ClockJumpDetector
from serve_app.storage.database import open_database
from serve_app.storage.outbox import Outbox
from tests.support import managers
from tests.support.backend import Backend
from tests.support.jobs import begin, new_job
from tests.support.managers import ScriptedDrivers, running_manager, settings_in, until
from tests.support.stores import stores

if TYPE_CHECKING:
    from serve_app.orchestration.opening import Stores

LEASE_S = 0.6
CANCELLED = Outcome(error_code="CANCELLED", error_message="no")
DONE = Outcome(result=b"{}", duration_s=1.0, processing_s=1.0)
FOR_EVER_S = 1e6


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Turns and leases of fractions of a second."""
    for module, name, value in (
        (manager, "TURN_S", 0.05),
        (manager, "BEAT_S", 0.1),
        (manager, "LEASE_S", LEASE_S),
        (job_supervisor, "LEASE_S", LEASE_S),
        (leases, "LEASE_S", LEASE_S),
        (manager, "PRUNE_EVERY_S", 0.2),
        (job_supervisor, "STARTS_AT_ONCE", 4),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, running_jobs=10)


def state(store: Stores, job_id: str) -> JobState:
    job = store.jobs.fetch_job(job_id)
    assert job is not None
    return job.state


async def finishes(store: Stores, attempt: Attempt) -> None:
    await asyncio.to_thread(store.attempts.finish_job, attempt, DONE)


async def stands_still(*_: object) -> None:
    await asyncio.sleep(FOR_EVER_S)


async def works(store: Stores, attempt: Attempt) -> None:
    """Beats for three leases, then finishes."""
    until_ = time.monotonic() + 3 * LEASE_S
    while time.monotonic() < until_:
        await asyncio.to_thread(store.attempts.beat, attempt, spent_s=0.05)
        await asyncio.sleep(0.05)
    await finishes(store, attempt)


async def test_d4_a_driver_that_stands_still_is_replaced(settings, store):
    """D4: its beats tell: it is killed and another attempt finishes; one that beats is left alone, however long."""

    async def behaviour(store, attempt):
        if attempt.job_id == "still" and attempt.number == 1:
            await stands_still()
        await works(store, attempt)

    drivers = ScriptedDrivers(store, behaviour)
    for job_id in ("still", "works"):
        store.jobs.submit_job(new_job(job_id))
    async with running_manager(settings, drivers):
        await until(lambda: {state(store, job_id) for job_id in ("still", "works")} == {JobState.COMPLETED})
    assert drivers.killed == ["still"]
    assert sorted(drivers.starts) == ["still", "still", "works"]


async def test_d6_a_file_that_kills_its_driver(settings, store, monkeypatch):
    """D6: three attempts, counted before each, then `failed`; its nine neighbours finish."""
    monkeypatch.setattr(job_supervisor, "LEASE_S", FOR_EVER_S)  # a busy machine holds drivers up, and that is no crash
    attempts = []

    async def behaviour(store, attempt):
        if attempt.job_id == "poison":
            attempts.append(attempt.number)
            return
        await finishes(store, attempt)

    ids = ["poison", *(f"job-{i}" for i in range(9))]
    for job_id in ids:
        store.jobs.submit_job(new_job(job_id))
    async with running_manager(settings, ScriptedDrivers(store, behaviour)):
        await until(lambda: all(state(store, job_id).ended for job_id in ids))
    assert attempts == [1, 2, 3]
    poison = store.jobs.fetch_job("poison")
    assert (poison.state, poison.error_code) == (JobState.FAILED, "INTERNAL_ERROR")
    assert [state(store, job_id) for job_id in ids[1:]] == [JobState.COMPLETED] * 9


async def test_d6_a_driver_that_never_counts_an_attempt(settings, store, monkeypatch):
    """D6: drivers that die before they can begin are not started for ever."""
    monkeypatch.setattr(store.attempts, "begin_attempt", lambda *_: None)
    drivers = ScriptedDrivers(store, finishes)
    store.jobs.submit_job(new_job("a"))
    async with running_manager(settings, drivers):
        await until(lambda: state(store, "a").ended)
    starts = drivers.starts
    assert state(store, "a") is JobState.FAILED
    assert len(starts) == job_supervisor.STARTS_PER_ATTEMPT * settings.limits.attempts + 1


async def test_a_job_after_a_quiet_time_is_begun_at_once(settings, store, monkeypatch):
    """What comes within the pause after a turn is gathered until its end; what comes later need not wait."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(manager, "time", SimpleNamespace(monotonic=lambda: now.s, time=time.time))
    monkeypatch.setattr(manager, "TURN_S", 2 * FOR_EVER_S)
    monkeypatch.setattr(manager, "GATHER_S", FOR_EVER_S)
    drivers = ScriptedDrivers(store, stands_still)
    async with running_manager(settings, drivers) as running:
        await running._first_turn.wait()
        store.jobs.submit_job(new_job("first"))
        now.s += FOR_EVER_S
        await running.wake()
        await until(lambda: drivers.starts == ["first"])
        store.jobs.submit_job(new_job("second"))
        await running.wake()
        await asyncio.sleep(0.2)
        assert drivers.starts == ["first"]


async def test_d7_a_server_that_stops_leaves_its_jobs_to_the_next(settings, store):
    """D7: nothing begins any more, drivers give back their attempts; after five orderly stops all jobs complete."""
    stops = 5
    may_finish = asyncio.Event()

    async def behaviour(store, attempt):
        assert attempt.number == 1
        try:
            await may_finish.wait()
        except asyncio.CancelledError:
            await asyncio.to_thread(store.attempts.give_back, attempt, spent_s=1.0)
            return
        await finishes(store, attempt)

    ids = [f"job-{i}" for i in range(12)]  # more than run at once
    for job_id in ids:
        store.jobs.submit_job(new_job(job_id))
    for _ in range(stops):
        drivers = ScriptedDrivers(store, behaviour)
        async with running_manager(settings, drivers) as server:
            await until(lambda drivers=drivers: len(drivers.alive) == 10)
            assert not store.jobs.is_draining()
            await until(lambda: store.jobs.fetch_job(ids[0]).attempt == 1)
            await server.drain()
            assert (drivers.alive, len(drivers.starts), drivers.killed) == ({}, 10, [])
            assert store.jobs.submit_job(new_job("late")).draining
            assert begin(store, ids[0]) is None
            assert {store.jobs.fetch_job(job_id).attempt for job_id in ids} == {0}
    may_finish.set()
    async with running_manager(settings, ScriptedDrivers(store, behaviour)):
        await until(lambda: all(state(store, job_id).ended for job_id in ids))
    assert [state(store, job_id) for job_id in ids] == [JobState.COMPLETED] * 12
    assert store.jobs.fetch_job(ids[0]).spent_s == stops
    assert store.jobs.submit_job(new_job("late")).started


async def test_d7_a_video_that_was_being_fetched_ahead_is_fetched_again(settings, store, monkeypatch):
    """D7: it is cut off, and not taken for one that cannot be fetched, whose URL would expire in the queue."""
    fetched = []

    async def prepare(job_id: str, *_: object) -> None:
        fetched.append(job_id)
        await stands_still()

    stages = SimpleNamespace(
        extractor=SimpleNamespace(**vars(managers.STAGES.extractor), prepare=managers.called(prepare))
    )
    monkeypatch.setattr(managers, "STAGES", stages)
    for i in range(11):
        store.jobs.submit_job(new_job(f"job-{i:02}"))
    for _ in range(2):
        begun = len(fetched)
        async with running_manager(settings, ScriptedDrivers(store, stands_still)) as server:
            await until(lambda begun=begun: len(fetched) > begun)
            await until(lambda: store.jobs.fetch_job("job-10").prefetch == "running")
            await server.drain()
        assert store.jobs.fetch_job("job-10").prefetch == "none"
    assert fetched == ["job-10", "job-10"]


async def test_d10_a_locked_database_costs_no_driver_its_lease(settings, store, monkeypatch):
    """D10: locked by somebody else for several leases: no driver is killed, and all goes on by itself afterwards."""
    lease_s = 1.5  # of five beats, for a busy machine
    for module in (manager, job_supervisor, leases):
        monkeypatch.setattr(module, "LEASE_S", lease_s)
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    quick = open_database(settings)
    impatient = stores(quick, queue_limit=9, running_limit=10)
    ended = asyncio.Event()

    async def behaviour(_, attempt):
        while not ended.is_set():
            with suppress(SQLAlchemyError):  # as the driver does: tried again
                await asyncio.to_thread(impatient.attempts.beat, attempt, spent_s=0.1)
            await asyncio.sleep(0.3)
        await finishes(impatient, attempt)

    drivers = ScriptedDrivers(store, behaviour)
    store.jobs.submit_job(new_job("a"))
    async with running_manager(settings, drivers):
        await until(lambda: store.jobs.fetch_job("a").beats > 0)
        with closing(sqlite3.connect(settings.state_dir / "ml-server.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(3 * lease_s)
            other.execute("ROLLBACK")
        beats = store.jobs.fetch_job("a").beats
        await until(lambda: store.jobs.fetch_job("a").beats > beats)
        ended.set()
        await until(lambda: state(store, "a").ended)
    quick.close()
    assert (drivers.killed, drivers.starts) == ([], ["a"])
    assert state(store, "a") is JobState.COMPLETED


async def test_d10_a_driver_that_is_stopped_within_a_write(settings, store, monkeypatch):
    """D10: it keeps everybody from writing until it is killed: the one that does not answer is found."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)

    class JobActors(ScriptedDrivers):
        async def kill(self, job):
            if job.job_id == "stopped":
                other.execute("ROLLBACK")
                self.hanging.clear()
            return await super().kill(job)

    async def behaviour(store, attempt):
        if attempt.number > 1:
            await finishes(store, attempt)
        await stands_still()

    with closing(sqlite3.connect(settings.state_dir / "ml-server.db", isolation_level=None)) as other:
        drivers = JobActors(store, behaviour)
        for job_id in ("stopped", "answers"):
            store.jobs.submit_job(new_job(job_id))
        async with running_manager(settings, drivers):
            await until(lambda: all(store.jobs.fetch_job(job_id).attempt for job_id in ("stopped", "answers")))
            drivers.hanging.add("stopped")
            other.execute("BEGIN IMMEDIATE")
            await until(lambda: bool(drivers.killed))
            assert drivers.killed == ["stopped"]
            await until(lambda: state(store, "stopped").ended)


async def test_d10_the_clock_ends_no_job(settings, store, monkeypatch):
    """D10: an hour forward, two back: no driver is killed, no job times out, and plans are brought back."""
    wall, moved_s, brought = time.time, [0.0], []
    monkeypatch.setattr(time, "time", lambda: wall() + moved_s[-1])
    monkeypatch.setattr(manager, "shift_back", lambda _, by_s: brought.append(by_s))
    drivers = ScriptedDrivers(store, works)
    store.jobs.submit_job(new_job("a"))
    async with running_manager(settings, drivers) as running:
        running._clock_jumps = ClockJumpDetector(time.time)
        await until(lambda: store.jobs.fetch_job("a").beats > 0)
        moved_s.append(3600.0)
        await asyncio.sleep(LEASE_S)
        moved_s.append(-3600.0)
        await until(lambda: state(store, "a").ended)
    assert (drivers.killed, drivers.starts) == ([], ["a"])
    assert state(store, "a") is JobState.COMPLETED
    assert brought == [pytest.approx(7200, abs=5)]


async def test_d9_a_job_whose_driver_never_comes_is_timed_out(tmp_path, monkeypatch):
    """D9: a slot is not held for ever where drivers cannot be started: measured by no wall clock."""
    monkeypatch.setattr(job_supervisor, "DEADLINE_GRACE_S", 0.1)
    settings = settings_in(tmp_path, processing_s=0.5)
    database = open_database(settings)
    store = open_stores(settings, database)

    class NoDrivers(ScriptedDrivers):
        async def start(self, _):
            raise RuntimeError("no node")

    store.jobs.submit_job(new_job("a"))
    monkeypatch.setattr(job_supervisor, "STARTS_PER_ATTEMPT", 1000)
    async with running_manager(settings, NoDrivers(store, finishes)):
        await until(lambda: state(store, "a").ended)
    assert store.jobs.fetch_job("a").error_code == "PROCESSING_TIMEOUT"
    database.close()


async def test_d14_a_second_manager_does_no_harm(settings, store, monkeypatch):
    """D14: it stands by while the first works, and takes over when that one leaves, without waiting for its lease."""
    monkeypatch.setattr(leases, "LEASE_S", FOR_EVER_S)
    first, second = ScriptedDrivers(store, finishes), ScriptedDrivers(store, finishes)
    async with AsyncExitStack() as stack:
        async with running_manager(settings, first) as works_now:
            await until(lambda: works_now._leads is True)
            stands_by = await stack.enter_async_context(running_manager(settings, second))
            await until(lambda: stands_by._leads is False)
            for job_id in "ab":
                store.jobs.submit_job(new_job(job_id))
            await until(lambda: all(state(store, job_id).ended for job_id in "ab"))
        store.jobs.submit_job(new_job("c"))
        await until(lambda: state(store, "c").ended)
    assert (sorted(first.starts), second.starts) == (["a", "b"], ["c"])
    assert [store.jobs.fetch_job(job_id).attempt for job_id in "abc"] == [1, 1, 1]


async def test_d14_who_hangs_is_followed_and_then_stands_by(settings, store, monkeypatch):
    """D14: a manager whose beats stand still is followed by another; when it goes on, it does not act."""
    first, second = ScriptedDrivers(store, finishes), ScriptedDrivers(store, finishes)
    async with running_manager(settings, first) as hangs:
        await until(lambda: hangs._leads is True)
        hangs._loop.cancel()
        async with running_manager(settings, second) as follows:
            assert follows._leads is not True
            await until(lambda: follows._leads is True)
            hangs._renewed_at = 0.0
            hangs._loop = asyncio.create_task(hangs._run())
            store.jobs.submit_job(new_job("a"))
            await until(lambda: hangs._leads is False)
            await until(lambda: state(store, "a").ended)
    assert (first.starts, second.starts) == ([], ["a"])


@pytest.fixture
def posts(monkeypatch) -> dict[str, list[str]]:
    """What is posted of each job: statuses as they go out, and behind an end how it was answered."""
    log: dict[str, list[str]] = {}
    post = CallbackClient.post

    async def watched(client, url, body, headers):
        content = json.loads(body)
        told = log.setdefault(content["job_id"], [])
        told.append(content["status"])
        answer = await post(client, url, body, headers)
        if content["status"] != "processing":
            told.append("acknowledged" if answer.status == 200 else "refused")
        return answer

    monkeypatch.setattr(CallbackClient, "post", watched)
    return log


@pytest.fixture
def _held_up(monkeypatch):
    """Senders of progress lose time between taking its number and asking whether it is still the newest."""
    extras_of_newest = Outbox.extras_of_newest

    def late(outbox, job_id, sequence):
        time.sleep(random.uniform(0, 0.06))  # noqa: S311 - keeps no secret
        return extras_of_newest(outbox, job_id, sequence)

    monkeypatch.setattr(progress_reporter, "MIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(Outbox, "extras_of_newest", late)


def driver_that_tells(sender: Sender, url: str):
    """Tells progress until it ends its job; every other one tells the end itself."""

    async def behaviour(store, attempt):
        now = Progress(percent=50, stage=Stage.DIARIZATION)
        told = {"job_id": attempt.job_id, "url": url, "locale": "ko", "heartbeat_s": 0.01}
        report = partial(asyncio.to_thread, store.attempts.save_progress, attempt, spent_s=0)
        teller = ProgressReporter(sender, now=lambda: now, report=report, **told)
        await asyncio.sleep(0.1)
        await teller.close()
        ending = await asyncio.to_thread(store.attempts.finish_job, attempt, DONE)
        if int(attempt.job_id[-1]) % 2:
            await sender.deliver(ending.callback_id)

    return behaviour


def refuses_every_third_end(new, before) -> int:
    """At first."""
    refused = new.ended and int(new.body["job_id"][-1]) % 3 == 0
    return 500 if refused and not any(got.ended and got.raw == new.raw for got in before) else 200


@pytest.mark.usefixtures("_held_up")
def test_w5_nothing_follows_an_acknowledged_end(settings, store, posts, monkeypatch):
    """W5: drivers' progress, heartbeats, starts, cancels, refused ends race: the acknowledged end is the last post."""
    monkeypatch.setattr(job_supervisor, "LEASE_S", FOR_EVER_S)  # a driver that is killed over its POST makes another
    hasty = settings.model_copy(update={"heartbeat_s": 0.001})
    ids = [f"job-{number:02}" for number in range(30)]

    async def run(backend: Backend) -> None:
        url, outbox = f"{backend.url}/result", Outbox(store.jobs._db)
        for job_id in ids:
            store.jobs.submit_job(new_job(job_id, url))
        async with CallbackClient(hasty.callbacks) as client:
            drivers = ScriptedDrivers(store, driver_that_tells(Sender(client, outbox), url))
            async with running_manager(hasty, drivers) as running:
                await until(lambda: all(backend.of(job_id) for job_id in ids[-5:]))
                for job_id in ids[-5:]:
                    await asyncio.to_thread(store.jobs.cancel_job, job_id, CANCELLED)
                await until(lambda: all(outbox.status(job_id).state == "delivered" for job_id in ids))
                assert not store.jobs.submit_job(new_job(ids[0], url)).started
                turned_at = running._turned_at
                await until(lambda: running._turned_at > turned_at + 10 * manager.TURN_S)

    with Backend(refuses_every_third_end) as backend:
        asyncio.run(run(backend))
        acknowledged = [sum(got.ended and got.answered == 200 for got in backend.of(job_id)) for job_id in ids]
    assert acknowledged == [1] * len(ids)
    for job_id, told in posts.items():
        end = told[-2]
        tries = told[told.index(end) :]
        assert end in {"completed", "failed"}, (job_id, told)
        assert set(tries[:-1]) <= {end, "refused"}, (job_id, told)  # no progress from the first try on
        assert tries[-1] == "acknowledged", (job_id, told)
    assert sum(told.count("processing") for told in posts.values()) >= 20
    assert sum(told.count("refused") for told in posts.values()) >= 10


async def test_w4_a_hanging_heartbeat_is_aborted_for_the_end(settings, store, monkeypatch):
    """W4: a waiting job is cancelled while a heartbeat of it hangs: that is given up for the end."""
    log: list[str] = []

    async def post(_client, _url, body, _headers):
        if json.loads(body)["status"] != "processing":
            log.append("end")
            return Answer(status=200, retry_after_s=None)
        log.append("progress")
        try:
            await stands_still()
        finally:
            log.append("aborted")

    monkeypatch.setattr(CallbackClient, "post", post)
    hasty = settings.model_copy(update={"heartbeat_s": 0.001})
    outbox = Outbox(store.jobs._db)
    for number in range(10):
        store.jobs.submit_job(new_job(f"job-{number}"))
    async with running_manager(hasty, ScriptedDrivers(store, stands_still)):
        await until(lambda: store.jobs.count_jobs().running == 10)
        store.jobs.submit_job(new_job("waits", "http://127.0.0.1:9/result"))
        await until(lambda: "progress" in log)
        store.jobs.cancel_job("waits", CANCELLED)
        await until(lambda: outbox.status("waits").state == "delivered")
        assert log == ["progress", "aborted", "end"]


async def test_w5_a_slow_heartbeat_does_not_arrive_after_what_the_actor_sends(tmp_path, store, monkeypatch):
    """W5: a waiting job's heartbeat is still connecting when its actor starts: it is given up, and never sent."""
    came: list[str] = []
    connecting, connected, place = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def post(_client, _url, _body, _headers):
        connecting.set()
        await connected.wait()
        came.append("heartbeat")
        return Answer(status=200, retry_after_s=None)

    async def behaviour(store, attempt):
        if attempt.job_id == "first":
            await place.wait()
            await finishes(store, attempt)
        else:
            came.append("actor")
            connected.set()
            await stands_still()

    monkeypatch.setattr(CallbackClient, "post", post)
    monkeypatch.setattr(job_queue, "DRIVER_GRACE_S", FOR_EVER_S)  # no second heartbeat, however slow the machine is
    hasty = settings_in(tmp_path, running_jobs=1).model_copy(update={"heartbeat_s": 0.001})
    async with running_manager(hasty, ScriptedDrivers(store, behaviour)) as running:
        store.jobs.submit_job(new_job("first"))
        await until(lambda: state(store, "first") is JobState.RUNNING)
        store.jobs.submit_job(new_job("waits", "http://127.0.0.1:9/result"))
        await until(connecting.is_set)
        place.set()
        await until(connected.is_set)
        turned_at = running._turned_at
        await until(lambda: running._turned_at > turned_at)
    assert came == ["actor"]


async def test_drivers_without_a_job_are_killed(settings, store):
    """At the second look: one may still be telling the end of its job."""
    drivers = ScriptedDrivers(store, stands_still)
    drivers.alive["gone"] = asyncio.create_task(stands_still())
    store.jobs.submit_job(new_job("a"))
    async with running_manager(settings, drivers):
        await until(lambda: "gone" not in drivers.alive)
        assert "a" in drivers.alive


async def test_a_cancelled_job_whose_actor_does_not_end_it_is_ended(settings, store, monkeypatch):
    """A6: the manager waits for the actor for a while, then ends the job itself, as cancelled."""
    monkeypatch.setattr(job_supervisor, "CANCEL_GRACE_S", 0.5)

    class Deaf(ScriptedDrivers):
        async def cancel(self, _job):
            """Do nothing."""

    async def beats(store, attempt):
        while await asyncio.to_thread(store.attempts.beat, attempt, spent_s=0.0):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    store.jobs.submit_job(new_job("a"))
    async with running_manager(settings, Deaf(store, beats)):
        await until(lambda: store.jobs.fetch_job("a").beats > 0)
        store.jobs.cancel_job("a", CANCELLED)
        asked_at = time.monotonic()
        await until(lambda: state(store, "a").ended)
    assert time.monotonic() - asked_at > 0.5
    assert store.jobs.fetch_job("a").error_code == "CANCELLED"


async def test_d9_time_of_earlier_attempts_counts(settings, store, monkeypatch):
    """D9: a job whose attempts have used up its time together is ended, though the manager has just begun to watch."""
    monkeypatch.setattr(job_supervisor, "DEADLINE_GRACE_S", 0.0)
    store.jobs.submit_job(new_job("a"))
    store.queue.admit_jobs()
    store.attempts.beat(Attempt.of(begin(store, "a")), spent_s=settings.limits.processing_s + 1)
    async with running_manager(settings, ScriptedDrivers(store, stands_still)):
        await until(lambda: state(store, "a").ended)
    assert store.jobs.fetch_job("a").error_code == "PROCESSING_TIMEOUT"
