from __future__ import annotations

import itertools
import json
import multiprocessing
import random
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import make_url, select, update
from sqlalchemy.exc import SQLAlchemyError

from serve_app.callbacks.retry_schedule import GIVE_UP_AFTER_S, RetrySchedule
from serve_app.jobs.job import Attempt, CallbackState, NewJob, Outcome, Prefetch
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import TRANSITIONS, IllegalTransitionError, JobState, check
from serve_app.storage import database as database_module
from serve_app.storage import job_queue, job_rows, timeline
from serve_app.storage.database import Database
from serve_app.storage.outbox import BREAKER_FAILURES, CLAIM_S, PROBE_EVERY_S
from serve_app.storage.tables import callbacks, checkpoints, events, metadata, receivers
from tests.support import jobs as some_jobs
from tests.support.jobs import BROKEN, DONE, attempt_of, begin
from tests.support.stores import fail, set_draining, stores

CALLBACK = "http://127.0.0.1:8000/api/upload-video/result"


@pytest.fixture
def store(database, clock):
    return stores(database, queue_limit=3, running_limit=2, clock=clock)


def new(job_id: str = "a", *, callback: str | None = CALLBACK, **fields) -> NewJob:
    return some_jobs.new_job(job_id, callback, **fields)


def started(store, job_id: str = "a", *, callback: str | None = CALLBACK, **fields) -> Attempt:
    """A job that a driver works on."""
    return some_jobs.started(store, job_id, callback, **fields)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_only_the_drawn_arrows_are_legal(before, after):
    """A job changes state only along the arrows of the diagram."""
    legal = {
        ("queued", "running"),
        ("queued", "failed"),
        ("running", "completed"),
        ("running", "failed"),
        ("failed", "queued"),
        ("completed", "queued"),
    }
    if (before, after) in legal:
        check(before, after)
    else:
        with pytest.raises(IllegalTransitionError):
            check(before, after)
    assert (after in TRANSITIONS[before]) == ((before, after) in legal)


def test_a_new_job_waits(store):
    """A POST stores the job as queued, in its first run."""
    submission = store.jobs.submit_job(new())
    assert submission.started
    assert (submission.job.state, submission.job.run, submission.job.progress) == (JobState.QUEUED, 1, 0)


def test_the_same_content_again_starts_nothing_and_renews_the_url(store):
    """A retry of the backend never starts a second job, and its newly signed URL replaces the stored one."""
    store.jobs.submit_job(new())
    again = store.jobs.submit_job(new(video_url="https://v/1.mp4?sig=2"))
    assert not again.started
    assert not again.conflict
    assert store.jobs.fetch_job("a").video_url == "https://v/1.mp4?sig=2"
    assert store.jobs.count_jobs().queued == 1


def test_other_content_under_a_known_id_is_a_conflict(store):
    """Different content under a known job_id is refused, and changes nothing."""
    store.jobs.submit_job(new())
    assert store.jobs.submit_job(new(video_url="https://v/2.mp4", fingerprint="g")).conflict
    assert store.jobs.fetch_job("a").video_url == "https://v/1.mp4?X-Amz-Signature=secret"


def test_a_failed_job_posted_again_is_a_new_run_with_rising_sequence(store):
    """The one arrow out of failed: progress starts over, the callback sequence rises on."""
    attempt = started(store)
    store.attempts.save_progress(attempt, Progress(percent=40, stage=Stage.DIARIZATION), spent_s=1)
    store.attempts.finish_job(attempt, BROKEN)
    before = store.jobs.fetch_job("a").sequence
    again = store.jobs.submit_job(new())
    assert again.started
    assert (again.job.run, again.job.attempt, again.job.progress, again.job.error_code) == (2, 0, 0, None)
    assert again.job.sequence == before
    assert store.attempts.save_progress(attempt, Progress(percent=50, stage=Stage.DIARIZATION), spent_s=1) is None


@pytest.mark.parametrize("forgotten", ["deleted", "pruned"])
def test_a_forgotten_job_posted_again_is_numbered_on(store, forgotten):
    """Receivers drop numbers below what they have seen of a job_id: it goes on above, though nothing of it is kept."""
    attempt = started(store, callback=None)
    for percent in (40, 50):
        store.attempts.save_progress(attempt, Progress(percent=percent, stage=Stage.DIARIZATION), spent_s=1)
    store.attempts.finish_job(attempt, DONE)
    other = started(store, "b", callback=None)  # with fewer numbers, forgotten later
    store.attempts.finish_job(other, DONE)
    seen = store.jobs.fetch_job("a").sequence
    assert store.jobs.fetch_job("b").sequence < seen
    if forgotten == "deleted":
        assert store.jobs.delete_job("a")
    else:
        store.queue.delete_old_jobs(store.jobs.fetch_job("a").finished_at + 1)
    store.jobs.delete_job("b")
    assert store.jobs.fetch_job("a") is store.jobs.fetch_job("b") is None
    again = started(store)
    assert (again.run, again.number) == (1, 1)
    assert store.attempts.save_progress(again, Progress(percent=5, stage=Stage.STARTING), spent_s=1) > seen


def test_a_completed_job_posted_again_stays_completed(store):
    """A retry after the end gets the present state and no second run."""
    attempt = started(store)
    store.attempts.finish_job(attempt, DONE)
    again = store.jobs.submit_job(new())
    assert not again.started
    assert again.job.state is JobState.COMPLETED


def test_the_queue_is_bounded(store):
    """Two run, three wait, the next is refused; the refused one leaves no trace."""
    for job_id in "abcde":
        assert store.jobs.submit_job(new(job_id)).started
    assert store.jobs.submit_job(new("f")).job is None
    assert store.jobs.fetch_job("f") is None


def test_many_posts_at_once_never_overfill_the_queue(store):
    """The bound holds when requests come at the same time: room for five, twenty threads, five accepted."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: store.jobs.submit_job(new(f"job-{i}")), range(40)))
    assert sum(answer.started for answer in answers) == 5
    assert store.jobs.count_jobs().queued == 5


def test_the_same_post_many_times_at_once_is_one_job(store):
    """Retries that overtake each other find the one job."""
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda i: store.jobs.submit_job(new(video_url=f"https://v/1.mp4?sig={i}")), range(20)))
    assert sum(answer.started for answer in answers) == 1
    assert {answer.job.job_id for answer in answers} == {"a"}


def admit_all(url: str, start, limit: int) -> tuple[int, list[str]]:
    """In a process of its own: admit and end until nobody waits. The most that ran at once, and whom it admitted."""
    database = Database(url)
    store = stores(database, queue_limit=100, running_limit=limit)
    most, admitted = 0, []
    start.wait()
    while (counts := store.jobs.count_jobs()).queued:
        most = max(most, counts.running)
        for job in store.queue.admit_jobs():
            most = max(most, store.jobs.count_jobs().running)
            admitted.append(job.job_id)
            store.attempts.finish_job(Attempt.of(job), BROKEN)
    database.close()
    return most, admitted


def test_two_managers_at_once_never_admit_too_many(database_url, database):
    """Two processes that admit at the same time: never more than the limit run, and no job gets two slots."""
    store = stores(database, queue_limit=100, running_limit=3)
    jobs = [f"job-{i}" for i in range(40)]
    for job_id in jobs:
        store.jobs.submit_job(new(job_id))
    context = multiprocessing.get_context("spawn")
    with context.Manager() as shared, ProcessPoolExecutor(2, context) as pool:
        admit = partial(admit_all, database_url, shared.Barrier(2, timeout=60))
        ended = [future.result() for future in [pool.submit(admit, 3) for _ in range(2)]]
    assert max(most for most, _ in ended) <= 3
    assert all(admitted for _, admitted in ended)
    assert sorted(job_id for _, admitted in ended for job_id in admitted) == sorted(jobs)


def test_writers_of_several_jobs_get_along(database, clock):
    """Those who change several jobs in one transaction never wait for each other in a circle."""
    store = stores(database, queue_limit=20, running_limit=20, clock=clock)
    names = [f"job-{i}" for i in range(12)]
    over = threading.Event()

    def meanwhile(write) -> int:
        rounds = 0
        while not over.is_set():
            write()
            rounds += 1
        return rounds

    def admit_in_changing_order(seed: int) -> None:
        for job_id in random.Random(seed).sample(names, len(names)):  # noqa: S311 - a repeatable mix
            clock.now += 1
            store.jobs.submit_job(new(job_id))
            store.queue.set_prefetch(store.jobs.fetch_job(job_id), "running")
        for job in store.queue.admit_jobs():
            store.attempts.finish_job(Attempt.of(job), BROKEN)

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(meanwhile, partial(store.queue.take_due_heartbeats, since_s=-60)) for _ in range(2)]
        others.append(pool.submit(meanwhile, store.queue.reset_prefetch))
        try:
            for seed in range(4):
                admit_in_changing_order(seed)
        finally:
            over.set()
        assert all(other.result() for other in others)


def test_the_oldest_are_admitted_up_to_the_limit(store, clock):
    """Slots go to those who wait longest, and never to more than the limit; positions fall."""
    for job_id in "abcd":
        store.jobs.submit_job(new(job_id))
        clock.now += 1
    assert [job.job_id for job in store.queue.admit_jobs()] == ["a", "b"]
    assert store.queue.admit_jobs() == []
    assert [store.jobs.queue_position(store.jobs.fetch_job(job_id)) for job_id in "cd"] == [1, 2]
    store.attempts.finish_job(attempt_of(store, "a", 0), BROKEN)
    assert [job.job_id for job in store.queue.admit_jobs()] == ["c"]
    assert store.jobs.queue_position(store.jobs.fetch_job("d")) == 1


def test_w1_the_end_and_its_callback_are_one_commit(store, outbox, monkeypatch):
    """W1: result, state and the due callback appear together or not at all; the callback carries the result's bytes."""
    attempt = started(store)
    with monkeypatch.context() as patch:
        patch.setattr(job_rows, "enqueue", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.attempts.finish_job(attempt, DONE)
    assert (store.jobs.fetch_job("a").state, store.jobs.fetch_result("a")) == (JobState.RUNNING, None)
    callback_id = store.attempts.finish_job(attempt, DONE).callback_id
    job = store.jobs.fetch_job("a")
    assert (job.state, job.progress) == (JobState.COMPLETED, 100)
    assert store.jobs.fetch_result("a") == DONE.result
    due = outbox.claim(callback_id)
    assert json.loads(due.body)["result"] == json.loads(DONE.result)
    assert due.sequence == job.sequence


@pytest.mark.parametrize("outcome", [DONE, BROKEN])
def test_m7_an_ended_job_forgets_what_signed_its_url(store, outcome):
    """M7: a job's row keeps the URL's query until the job ends, in whatever way, and no longer."""
    attempt = started(store)
    assert store.jobs.fetch_job("a").video_url == "https://v/1.mp4?X-Amz-Signature=secret"
    store.attempts.finish_job(attempt, outcome)
    store.jobs.submit_job(new("b"))
    store.jobs.cancel_job("b", BROKEN)
    assert {store.jobs.fetch_job(job_id).video_url for job_id in "ab"} == {"https://v/1.mp4"}


def test_m7_not_even_the_file_remembers(sqlite_url, tmp_path):
    """M7: once SQLite's log is folded in, no byte of the file holds what signed the URLs of ended jobs."""
    database = Database(sqlite_url)
    database.create()
    store = stores(database, queue_limit=20, running_limit=2)
    for number in range(20):
        store.jobs.submit_job(new(f"job{number}", video_url=f"https://v/1.mp4?signed-{number}-{'x' * 300}"))
        store.jobs.cancel_job(f"job{number}", BROKEN)
    database.close()
    assert (tmp_path / "jobs.db").exists()
    assert not [path.name for path in tmp_path.iterdir() if b"signed-" in path.read_bytes()]


def test_m7_a_new_run_brings_its_own_url(store):
    """M7: a failed job posted again is fetched by the URL that came with the new request."""
    store.attempts.finish_job(started(store), BROKEN)
    store.jobs.submit_job(new(video_url="https://v/1.mp4?sig=2"))
    assert store.jobs.fetch_job("a").video_url == "https://v/1.mp4?sig=2"


def test_an_old_attempt_writes_nothing(store):
    """The fence: when a newer attempt has begun, the old one's progress and end are refused."""
    old = started(store)
    newer = begin(store, "a")
    assert newer.attempt == old.number + 1
    assert store.attempts.save_progress(old, Progress(percent=99, stage=Stage.ASSEMBLY), spent_s=1) is None
    assert store.attempts.finish_job(old, DONE) is None
    assert store.jobs.fetch_job("a").state is JobState.RUNNING
    assert store.attempts.finish_job(Attempt.of(newer), DONE) is not None


def test_a_finished_run_never_changes(store):
    """No write reaches a run that has ended, and no attempt begins in it."""
    attempt = started(store)
    store.attempts.finish_job(attempt, DONE)
    assert store.attempts.finish_job(attempt, BROKEN) is None
    assert begin(store, "a") is None
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


def test_time_spent_adds_up_over_attempts(store):
    """What a crashed attempt used of the run's time stays counted."""
    first = started(store)
    store.attempts.save_progress(first, Progress(percent=10, stage=Stage.EXTRACTION), spent_s=5.0)
    second = begin(store, "a")
    store.attempts.save_progress(Attempt.of(second), Progress(percent=10, stage=Stage.EXTRACTION), spent_s=2.0)
    assert store.jobs.fetch_job("a").spent_s == 7.0


def test_d7_nothing_begins_while_the_server_stops(store, database):
    """D7: no job is taken, admitted or begun, and a known one is still known; afterwards all is as before."""
    attempt = started(store, "a")
    store.jobs.submit_job(new("b"))
    set_draining(database, draining=True)
    set_draining(database, draining=True)
    assert store.jobs.is_draining()
    refused = store.jobs.submit_job(new("c"))
    assert (refused.job, refused.draining) == (None, True)
    assert store.jobs.submit_job(new("b")).job.state is JobState.QUEUED
    assert store.queue.admit_jobs() == []
    assert begin(store, "a") is None
    assert store.attempts.save_progress(attempt, Progress(percent=50, stage=Stage.DIARIZATION), spent_s=1) is not None
    set_draining(database, draining=False)
    set_draining(database, draining=False)
    assert store.jobs.submit_job(new("c")).started
    assert [job.job_id for job in store.queue.admit_jobs()] == ["b"]


def test_d7_an_attempt_that_is_given_back_is_not_counted(store):
    """D7: the next has its number, the time spent stays, and only the newest attempt of a run that goes on is given."""
    attempt = started(store)
    assert store.attempts.give_back(attempt, spent_s=2.5)
    job = store.jobs.fetch_job("a")
    assert (job.state, job.attempt, job.spent_s) == (JobState.RUNNING, 0, 2.5)
    assert not store.attempts.give_back(attempt, spent_s=1)
    assert store.attempts.finish_job(attempt, DONE) is None
    assert begin(store, "a").attempt == 1
    assert begin(store, "a").attempt == 2
    assert not store.attempts.give_back(attempt, spent_s=1)
    newest = attempt_of(store, "a", 2)
    assert store.attempts.finish_job(newest, DONE) is not None
    assert not store.attempts.give_back(newest, spent_s=1)
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


def test_cancel_ends_a_queued_job_and_marks_a_running_one(store, outbox):
    """A queued job ends at once with its terminal callback; a running one is left to its driver."""
    started(store)
    store.jobs.submit_job(new("b"))
    assert store.jobs.cancel_job("b", BROKEN).state is JobState.FAILED
    assert outbox.status("b").state is CallbackState.PENDING
    running = store.jobs.cancel_job("a", BROKEN)
    assert running.state is JobState.RUNNING
    assert running.cancel_requested


def test_delete_takes_result_and_callbacks_along(store, outbox):
    """A deleted job leaves nothing behind, and one that runs cannot be deleted."""
    attempt = started(store)
    store.jobs.delete_job("a")
    assert store.jobs.fetch_job("a") is not None
    callback_id = store.attempts.finish_job(attempt, DONE).callback_id
    store.jobs.delete_job("a")
    assert store.jobs.fetch_job("a") is None
    assert store.jobs.fetch_result("a") is None
    assert outbox.claim(callback_id) is None


@pytest.fixture
def with_everything(database, store, outbox, clock):
    """Jobs that have rows in every table: `old` ended at a time when `young` and the others had not begun."""

    def ended_at(job_id: str, at: float, *, told: bool = True, outcome: Outcome = DONE) -> str:
        clock.now = at
        roomy = stores(database, queue_limit=500, running_limit=500, clock=clock)
        attempt = started(roomy, job_id)
        callback_id = roomy.attempts.finish_job(attempt, outcome).callback_id
        with database.write() as db:
            db.execute(checkpoints.insert().values(job_id=job_id, run=1, stage="s", digest="", body=b""))
        if told:
            outbox.mark_delivered(outbox.claim(callback_id))
        return callback_id

    return ended_at


def rows_of(database, job_id: str) -> set[str]:
    """The tables that know of a job."""
    known = [table for table in metadata.sorted_tables if "job_id" in table.c]
    with database.read() as db:
        return {t.name for t in known if db.execute(select(t.c.job_id).where(t.c.job_id == job_id)).first()}


EVERYTHING = {"jobs", "results", "callbacks", "checkpoints", "events"}


def test_d12_a_pruned_job_takes_everything_along(store, database, clock, with_everything):
    """D12: old jobs, completed or failed, leave no row in any table; younger and unended ones stay."""
    with_everything("completed", 1_000_000)
    with_everything("failed", 1_000_000, outcome=BROKEN)
    with_everything("young", 1_000_200)
    running = started(store, "running")
    store.jobs.submit_job(new("queued"))
    assert rows_of(database, "completed") == EVERYTHING
    clock.now = 1_000_300
    assert store.queue.delete_old_jobs(1_000_100) == 2
    assert (rows_of(database, "completed"), rows_of(database, "failed")) == (set(), set())
    assert rows_of(database, "young") == EVERYTHING
    assert store.jobs.fetch_job("queued") is not None
    assert store.attempts.finish_job(running, DONE) is not None
    assert store.queue.delete_old_jobs(1_000_100) == 0


def test_old_jobs_go_some_at_a_time(store, database, with_everything):
    """No deletion holds the write lock for long: each takes the oldest ten, and the next one goes on from there."""
    ended = [f"{number:02}" for number in range(25)]
    for number, job_id in enumerate(ended):
        with_everything(job_id, 1_000_000 + number)
    left = []
    while gone := store.queue.delete_old_jobs(2_000_000):
        assert gone <= 10
        left.append([job_id for job_id in ended if rows_of(database, job_id)])
    assert left == [ended[10:], ended[20:], []]


def test_d12_a_job_whose_end_is_not_told_is_kept(store, outbox, clock, with_everything):
    """D12: not pruned while a callback is pending, a renewed one as well; given up or delivered, it goes."""
    pending = with_everything("pending", 1_000_000, told=False)
    with_everything("renewed", 1_000_000)
    outbox.redeliver("renewed")
    assert store.queue.delete_old_jobs(2_000_000) == 0
    outbox.give_up(outbox.claim(pending), error="http_410")
    assert store.queue.delete_old_jobs(2_000_000) == 1
    outbox.mark_delivered(outbox.claim(outbox.due(1)[0][0]))
    assert store.queue.delete_old_jobs(2_000_000) == 1


def test_d12_a_redelivery_that_has_just_begun_is_not_pruned(store, with_everything, database):
    """D12: what is renewed while old jobs are looked for stays: asked again when nobody else can change them."""
    with_everything("a", 1_000_000)
    renewing = threading.Event()

    def renew() -> None:
        with database.write() as db:
            db.execute(update(callbacks).values(state=CallbackState.PENDING))
            timeline.record(db, "a", timeline.EventKind.CALLBACK_RENEWED, at=1.0)
            renewing.set()
            time.sleep(0.5)  # the pruner comes meanwhile

    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(renew)
        assert renewing.wait(20)
        assert store.queue.delete_old_jobs(2_000_000) == 0
        renewal.result()
    assert store.jobs.fetch_job("a") is not None


def test_d12_pruning_goes_in_parts(store, with_everything, monkeypatch):
    """D12: a long absence's worth of old jobs does not keep other writers out, and untold ones do not fill the part."""
    monkeypatch.setattr(job_queue, "PRUNED_AT_ONCE", 2)
    for number in range(2):
        with_everything(f"untold-{number}", 900_000, told=False)
    for number in range(5):
        with_everything(f"job-{number}", 1_000_000)
    assert [store.queue.delete_old_jobs(2_000_000) for _ in range(4)] == [2, 2, 1, 0]


def test_pages_are_newest_first_and_do_not_overlap(store, clock, database):
    """Walking the pages by `after` meets every job once, the newest first."""
    roomy = stores(database, queue_limit=100, running_limit=2, clock=clock)
    for i in range(7):
        roomy.jobs.submit_job(new(f"job-{i}"))
        clock.now += i % 2
    seen, after = [], None
    while page := roomy.jobs.job_list.page(state=None, limit=3, after=after):
        seen += [line.job.job_id for line in page]
        after = seen[-1]
    assert seen == [f"job-{i}" for i in (6, 5, 4, 3, 2, 1, 0)]


def test_a_waiting_job_is_told_of_at_most_once_per_interval(store, clock):
    """The manager's heartbeat for queued jobs: due after the interval, then not again before the next."""
    store.jobs.submit_job(new())
    assert store.queue.take_due_heartbeats(since_s=25) == []
    clock.now += 26
    [told] = store.queue.take_due_heartbeats(since_s=25)
    assert told.sequence == 1
    assert store.queue.take_due_heartbeats(since_s=25) == []


def test_d13_least_time_left_is_fetched_first(store):
    """D13: prefetching prefers the URL that expires first; what failed with an older URL is fetched with the new one.

    One that is being fetched is returned as well: only the manager knows whether it is, or an answer was lost.
    """
    store.jobs.submit_job(new("a"))
    store.jobs.submit_job(new("b", video_expires_at=1.0))
    first, second = store.queue.select_jobs_to_prefetch(5)
    assert (first.job_id, second.job_id) == ("b", "a")
    store.queue.set_prefetch(first, Prefetch.RUNNING)
    assert [job.job_id for job in store.queue.select_jobs_to_prefetch(5)] == ["b", "a"]
    store.queue.set_prefetch(second, Prefetch.FAILED)
    store.jobs.submit_job(new("b", video_url="https://v/1.mp4?sig=2"))
    store.queue.set_prefetch(first, Prefetch.FAILED)
    assert [job.job_id for job in store.queue.select_jobs_to_prefetch(5)] == ["b"]
    store.queue.set_prefetch(store.jobs.fetch_job("b"), Prefetch.DONE)
    assert store.queue.select_jobs_to_prefetch(5) == []


def test_w5_a_claimed_callback_is_nobody_elses(store, outbox, clock):
    """W5: two senders never try the same callback at once; a sender that dies gives it back after its claim."""
    callback_id = store.attempts.finish_job(started(store), DONE).callback_id
    assert outbox.claim(callback_id).attempts == 1
    assert outbox.claim(callback_id) is None
    assert outbox.due(10) == []
    clock.now += CLAIM_S + 1
    assert [row[:2] for row in outbox.due(10)] == [(callback_id, "a")]
    assert outbox.claim(callback_id).attempts == 2


def test_w5_of_many_senders_one_gets_the_callback(store, outbox):
    """W5: senders that reach for the same callback at the same time: one has it."""
    callback_id = store.attempts.finish_job(started(store), DONE).callback_id
    with ThreadPoolExecutor(10) as pool:
        claims = list(pool.map(lambda _: outbox.claim(callback_id), range(20)))
    assert sum(claim is not None for claim in claims) == 1


def test_w3_the_whole_schedule_of_a_dead_backend(store, outbox, clock, database):
    """W3: 1 s, 5 s, 30 s, 2 min, then every 5 min to 6 h, then every 30 min to 72 h, then undelivered."""
    callback_id = store.attempts.finish_job(started(store), DONE).callback_id
    began = clock.now
    waits = []
    while due := outbox.claim(callback_id):
        fail(outbox, due, error="http_500")
        if outbox.status("a").state is not CallbackState.PENDING:
            break
        with database.read() as db:
            next_try_at = db.execute(select(callbacks.c.next_try_at)).scalar_one()
        waits.append(next_try_at - clock.now)
        clock.now = next_try_at - 0.1
        assert outbox.due(1) == []
        clock.now = next_try_at
    assert waits[:5] == [1.0, 5.0, 30.0, 120.0, 300.0]
    assert set(waits[4:70]) == {300.0}
    assert set(waits[-100:]) == {1800.0}
    assert clock.now - began == pytest.approx(GIVE_UP_AFTER_S, rel=0.01)
    assert outbox.status("a").last_error == "http_500"


def test_retry_after_is_obeyed_up_to_an_hour():
    """A receiver's own wish for a pause counts where it is longer, and never more than an hour."""
    schedule = RetrySchedule(spread=0)
    assert schedule.wait_s(attempts=1, age_s=0, retry_after_s=60) == 60
    assert schedule.wait_s(attempts=4, age_s=0, retry_after_s=60) == 120
    assert schedule.wait_s(attempts=1, age_s=0, retry_after_s=90_000) == 3600


def test_from_six_hours_on_every_half_hour():
    """Until 6 h have passed every 5 min, from then on every 30 min."""
    schedule = RetrySchedule(spread=0)
    assert [schedule.wait_s(attempts=9, age_s=age_s) for age_s in (6 * 3600 - 1, 6 * 3600)] == [300, 1800]


def test_jitter_spreads_by_a_fifth():
    """Waits differ, within ±20 %."""
    waits = [RetrySchedule().wait_s(attempts=3, age_s=0) for _ in range(300)]
    assert 24 <= min(waits) < 25.5
    assert 34.5 < max(waits) <= 36


def test_a_new_result_has_no_names(store):
    """Its speakers are others. A deleted job's names are gone with it."""
    store.attempts.finish_job(started(store), DONE)
    store.jobs.name_speakers(store.jobs.fetch_job("a"), {"SPEAKER_00": "Anna"})
    assert store.jobs.fetch_job("a").speakers == {"SPEAKER_00": "Anna"}
    assert store.jobs.delete_job("a")
    store.jobs.submit_job(new())
    assert store.jobs.fetch_job("a").speakers is None


def test_names_that_are_the_same_change_nothing(store):
    """One event for each change of the names, none for a repeated request."""
    store.attempts.finish_job(started(store), DONE)
    job = store.jobs.fetch_job("a")
    for names in ({}, {"A": "x"}, {"A": "x"}, {"A": "y"}, {}, {}):
        assert (store.jobs.name_speakers(job, names).speakers or {}) == names
    told = [event.kind for event in store.jobs.fetch_timeline("a")]
    assert told.count(timeline.EventKind.SPEAKERS_NAMED) == 3


def test_events_of_a_later_release_are_left_out(store, database):
    """While `serve deploy` runs, both releases write into a timeline; the older one does not fail over it."""
    store.jobs.submit_job(new())
    with database.write() as db:
        db.execute(update(events).values(kind="later"))
    assert store.jobs.fetch_timeline("a") == []
    started(store)
    assert [event.kind for event in store.jobs.fetch_timeline("a")] == ["started", "attempt"]


def test_redelivery_starts_the_schedule_over(store, outbox, clock):
    """After giving up, `redeliver` sends the same callback again, under the same id."""
    callback_id = store.attempts.finish_job(started(store), DONE).callback_id
    clock.now += GIVE_UP_AFTER_S
    fail(outbox, outbox.claim(callback_id), error="timeout")
    assert outbox.status("a").state is CallbackState.UNDELIVERED
    assert outbox.redeliver("a")
    assert outbox.claim(callback_id).attempts == 1


def test_a_failing_receiver_gets_one_probe_per_half_minute(outbox, clock):
    """After several failures in a row only one try per 30 s goes out, for all senders together."""
    for _ in range(BREAKER_FAILURES):
        assert outbox.breaker.acquire("http://b").granted
        outbox.breaker.record_failure("http://b")
    assert outbox.breaker.acquire("http://b").retry_at == clock.now + PROBE_EVERY_S
    clock.now += PROBE_EVERY_S
    assert outbox.breaker.acquire("http://b").granted
    assert not outbox.breaker.acquire("http://b").granted
    assert outbox.breaker.acquire("http://other").granted
    outbox.breaker.record_success("http://b")
    assert outbox.breaker.acquire("http://b").granted


def test_failures_noted_at_once_all_count(outbox, database):
    """Senders that fail at the same time at a receiver nobody knew: no failure is lost."""
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: outbox.breaker.record_failure("http://b"), range(20)))
    with database.read() as db:
        assert db.execute(select(receivers.c.failures)).scalar_one() == 20


def test_a_job_without_callback_owes_none(store, outbox):
    """Where nobody is to be told, the job ends without a callback."""
    attempt = started(store, callback=None)
    assert store.attempts.finish_job(attempt, DONE).callback_id is None
    assert outbox.status("a").state is CallbackState.NONE


def test_what_is_stored_is_there_for_others(database_url, store):
    """Another process that opens the database sees a stored job at once."""
    store.jobs.submit_job(new())
    second = Database(database_url)
    assert stores(second, queue_limit=3, running_limit=2).jobs.fetch_job("a") is not None
    second.close()


def test_answered_means_durable_on_sqlite(sqlite_url):
    """WAL mode with full sync: a commit is on the disk."""
    database = Database(sqlite_url)
    database.create()
    with database.write() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    database.close()


def test_answered_means_durable_on_postgresql(postgresql_url):
    """A commit waits for the disk, whatever the server's default is; a stricter default is left alone."""
    database = Database(postgresql_url)
    with database.write() as db:
        assert db.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert db.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
        name = make_url(postgresql_url).database
        db.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    database.close()
    with database.write() as db:
        assert db.exec_driver_sql("SHOW synchronous_commit").scalar() == "remote_apply"
    database.close()


@pytest.mark.usefixtures("tables_by_alembic")
def test_the_tables_are_made_once(database_url):
    """Processes that start at the same time on an empty database do not stumble over each other."""
    many = [Database(database_url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(Database.create, many))
    assert stores(many[0], queue_limit=3, running_limit=2).jobs.count_jobs().queued == 0
    for database in many:
        database.close()


def test_who_waits_for_its_turn_waits_a_bounded_time(database_url, monkeypatch):
    """A writer behind one that does not end gives up with an error that the edge answers with 503."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.2)
    holder, other = Database(database_url), Database(database_url)
    holder.create()
    store = stores(other, queue_limit=3, running_limit=2)
    with holder.write(admission=True):
        began = time.monotonic()
        with pytest.raises(SQLAlchemyError):
            store.jobs.submit_job(new())
        assert 0.1 < time.monotonic() - began < 3
    assert store.jobs.submit_job(new()).started
    holder.close()
    other.close()


def test_a_process_that_hangs_in_a_transaction_stops_nobody(postgresql_url, monkeypatch):
    """PostgreSQL ends a transaction that has gone silent: the next writer gets its turn, the silent one an error."""
    monkeypatch.setattr(database_module, "IDLE_TRANSACTION_S", 0.2)
    silent, other = Database(postgresql_url), Database(postgresql_url)
    other.create()
    store = stores(other, queue_limit=3, running_limit=2)
    with pytest.raises(SQLAlchemyError), silent.write(admission=True):
        store.jobs.submit_job(new())
    assert store.jobs.fetch_job("a") is not None
    silent.close()
    other.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_understood(postgresql_url, scheme):
    """The URL may be written as operators and hosting companies write it."""
    database = Database(postgresql_url.replace("postgresql", scheme, 1))
    with database.read() as db:
        assert db.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()


def test_a_reader_does_not_wait_for_a_writer(store, database):
    """Status and health are answered while somebody else's transaction is open."""
    store.jobs.submit_job(new())
    with database.write() as db:
        db.exec_driver_sql("UPDATE jobs SET progress = 7")
        began = time.monotonic()
        assert store.jobs.fetch_job("a").progress == 0
        assert time.monotonic() - began < 1


def test_an_error_does_not_tell_the_url(store, database):
    """A presigned URL is a secret: the text of a database error does not hold it."""
    with database.write() as db:
        db.exec_driver_sql("ALTER TABLE jobs RENAME COLUMN video_url TO gone")
    with pytest.raises(SQLAlchemyError) as error:
        store.jobs.submit_job(new())
    assert "secret" not in str(error.value)


def test_a_broken_rule_does_not_tell_the_row(store):
    """The text of a database error, its cause's and its traceback's too, does not hold the row that broke a rule."""
    signed = "https://v/1.mp4?X-Amz-Signature=" + "secret".upper()
    with pytest.raises(SQLAlchemyError) as error:
        store.jobs.submit_job(new(video_url=signed, fingerprint=None))
    assert "fingerprint" in str(error.value)
    assert "SECRET" not in "".join(traceback.format_exception(error.value))


def test_an_attempt_is_counted_once(store):
    """A commit that succeeds while its answer is lost is asked for again: the attempt counts once."""
    store.jobs.submit_job(new())
    store.queue.admit_jobs()
    job = store.jobs.fetch_job("a")
    first = [store.attempts.begin_attempt("a", job.run, job.token, 1.5) for _ in range(3)]
    assert [each.attempt for each in first] == [1, 1, 1]
    assert store.attempts.begin_attempt("a", job.run, job.token, 2.5).attempt == 2
    assert store.attempts.begin_attempt("a", job.run, job.token, 1.5) is None
    store.attempts.finish_job(attempt_of(store, "a", 2), DONE)
    assert store.attempts.begin_attempt("a", job.run, job.token, 2.5) is None
