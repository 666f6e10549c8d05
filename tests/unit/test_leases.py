"""Leases and the fence, over both databases, and with processes that are really stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from serve_app.jobs.job import Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState
from serve_app.storage import database as database_module
from serve_app.storage import leases as leases_module
from serve_app.storage.database import Database
from serve_app.storage.leases import LEASE_S, LONGEST_STEP_S, Lease, Watch
from serve_app.storage.tables import leases
from tests.support.jobs import begun, new_job
from tests.support.stores import stores

DONE = Outcome(result=b'{"text":"by the second"}', duration_s=1.0, processing_s=2.0)
WORKER = """
import sys
from serve_app.storage.database import Database
from serve_app.jobs.job import Attempt, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from tests.support.jobs import begin
from tests.support.stores import stores

PROGRESS = Progress(percent=99, stage=Stage.ASSEMBLY)
store = stores(Database(sys.argv[1]), queue_limit=3, running_limit=2)
job = begin(store, "a")
me = Attempt.of(job)
writes = {
    "beat": lambda: store.attempts.beat(me, spent_s=1.0),
    "tell": lambda: store.attempts.save_progress(me, PROGRESS, spent_s=1.0) is not None,
    "finish": lambda: store.attempts.finish_job(me, Outcome(result=b"by the first")) is not None,
}
print("begun", flush=True)
for line in sys.stdin:
    print(writes[line.strip()](), flush=True)
"""
"""A driver's writes, each when it is told to."""


class Steady:
    """A clock that nobody sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(database):
    return stores(database, queue_limit=3, running_limit=2)


def test_d4_a_worker_that_is_stopped_and_continued_writes_nothing(database_url, store):
    """D4: stopped (SIGSTOP) while another attempt begins, then continued: beat, progress and end are all refused."""
    store.jobs.submit_job(new_job())
    store.queue.admit_jobs()
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, database_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout.readline() == "begun\n"
        answers = [ask(worker, "beat"), ask(worker, "tell")]
        os.kill(worker.pid, signal.SIGSTOP)
        second = begun(store)
        before = store.jobs.fetch_job("a")
        for write in ("beat", "tell", "finish"):
            worker.stdin.write(write + "\n")
        worker.stdin.flush()
        os.kill(worker.pid, signal.SIGCONT)
        answers += [worker.stdout.readline() for _ in range(3)]
        assert answers == ["True\n"] * 2 + ["False\n"] * 3
        assert store.jobs.fetch_job("a") == before
        assert store.attempts.finish_job(second, DONE) is not None
        assert [ask(worker, write) for write in ("beat", "tell", "finish")] == ["False\n"] * 3
    finally:
        worker.kill()
        worker.communicate()
    assert store.jobs.fetch_result("a") == DONE.result


def ask(worker: subprocess.Popen[str], write: str) -> str:
    worker.stdin.write(write + "\n")
    worker.stdin.flush()
    return worker.stdout.readline()


def test_d4_a_driver_beats_with_and_without_news(store):
    """D4: a beat and a progress that is told both raise the number that the manager watches, and count the time."""
    store.jobs.submit_job(new_job())
    store.queue.admit_jobs()
    attempt = begun(store)
    assert store.attempts.beat(attempt, spent_s=5.0)
    assert store.attempts.save_progress(attempt, Progress(percent=10, stage=Stage.EXTRACTION), spent_s=1.0) == 1
    job = store.jobs.fetch_job("a")
    assert (job.beats, job.spent_s, job.sequence) == (2, 6.0, 1)
    store.attempts.finish_job(attempt, DONE)
    assert not store.attempts.beat(attempt, spent_s=1.0)
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


def test_d4_time_counts_only_while_one_looks():
    """D4: a manager that was held up itself does not take that time for a driver's silence."""
    clock = Steady()
    watch = Watch(clock)
    assert watch.unchanged_s("a", 1) == 0
    clock.now += 3600
    assert watch.unchanged_s("a", 1) == LONGEST_STEP_S
    for _ in range(int(LEASE_S)):
        clock.now += 1
        unchanged_s = watch.unchanged_s("a", 1)
    assert unchanged_s == LONGEST_STEP_S + LEASE_S
    assert watch.unchanged_s("a", 2) == 0
    clock.now += 1
    assert watch.unchanged_s("a", 2) == 1
    watch.reset()
    assert watch.unchanged_s("a", 2) == 0


def test_d14_one_of_two_managers_has_the_lease(database):
    """D14: it stays with whoever renews it, and goes to the other when its beats stand still for long enough."""
    clock = Steady()
    first, second = Lease(database, "m"), Lease(database, "m", watch=Watch(clock))
    assert first.hold()
    for _ in range(40):
        clock.now += 2
        assert first.hold()
        assert not second.hold()
    for _ in range(15):
        clock.now += 2
        assert not second.hold()
    clock.now += 2
    assert second.hold()
    assert not first.hold()
    assert second.hold()


def test_d14_who_cannot_write_does_not_blame_the_holder(database, monkeypatch):
    """D14: while nobody can write, beats stand still: the lease goes to nobody else for that."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    clock = Steady()
    blocked = Database(database._engine.url.render_as_string(hide_password=False))
    first, second = Lease(database, "m"), Lease(blocked, "m", watch=Watch(clock))
    assert first.hold()
    with database.write() as db:
        db.execute(leases.update().values(beats=leases.c.beats))
        for _ in range(11):
            assert not second.hold()
            clock.now += LONGEST_STEP_S
        with pytest.raises(SQLAlchemyError):
            second.hold()
    assert not second.hold()
    assert first.hold()
    blocked.close()


def test_d14_who_leaves_makes_room_at_once(database):
    """D14: the manager of an old release hands over without a wait, and does not come back."""
    old, new = Lease(database, "m"), Lease(database, "m")
    assert old.hold()
    assert not new.hold()
    old.give_back()
    assert not old.hold()
    assert new.hold()
    old.give_back()
    assert new.hold()


def test_d14_a_process_that_has_ended_keeps_nobody_waiting(database):
    """D14: on one machine a dead manager's successor sees that it is dead."""
    program = "from serve_app.storage.leases import new_holder; print(new_holder())"
    dead = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    with database.write() as db:
        db.execute(insert(leases).values(name="m", holder=dead, beats=7))
    assert Lease(database, "m").hold()


def test_d14_of_many_that_reach_for_it_one_has_it(database):
    """D14: on an empty table, and when the holder stands still."""
    many = [Lease(database, "m", watch=Watch(Steady())) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(Lease.hold, many)) == 1
        for lease in many:
            lease._watch._clock.now += LONGEST_STEP_S
        holders = [lease for lease in many if lease.hold()]
        others = [lease for lease in many if lease not in holders]
        for lease in others:
            for _ in range(12):
                lease._watch._clock.now += LONGEST_STEP_S
                lease._watch.unchanged_s("m", _row(database))
        assert len(holders) == 1
        assert sum(pool.map(Lease.hold, others)) == 1


def _row(database: Database) -> tuple[str, int]:
    with database.read() as db:
        row = db.execute(leases.select()).mappings().one()
        return row["holder"], row["beats"]


def test_who_is_gone():
    """Known of processes of this machine and container only: ended, not waited for, or another by the same number."""
    mine = leases_module.new_holder()
    machine, pid, started, mark = mine.split(".")
    assert len(mine) <= 64
    assert not leases_module.is_gone(mine)
    assert leases_module.is_gone(f"{machine}.{pid}.{int(started) + 1}.{mark}")
    assert not leases_module.is_gone(f"{'0' * 16}.{pid}.1.{mark}")
    assert not leases_module.is_gone("no-linux")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    childs = f"{machine}.{child.pid}.{leases_module._process(child.pid)[1]}.{mark}"
    assert not leases_module.is_gone(childs)
    child.stdin.close()
    deadline = time.monotonic() + 20
    while not leases_module.is_gone(childs):  # a zombie: nobody has waited for it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.wait()
    assert leases_module.is_gone(childs)
