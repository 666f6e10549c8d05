"""Delivery without Ray: real store, outbox and sender, receivers that are functions or sockets, a clock of ours."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from deployments import logs
from deployments.net.client import Answer, CallbackClient, NetError
from deployments.net.policy import CallbackPolicy
from serve_app.callbacks import payloads
from serve_app.callbacks import sender as sender_module
from serve_app.callbacks.retry_schedule import HOUR_S, JITTER, MINUTE_S
from serve_app.callbacks.sender import Sender
from serve_app.jobs.job import Attempt, CallbackExtras, CallbackState, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState
from serve_app.storage.outbox import BREAKER_FAILURES, CLAIM_S, PER_RECEIVER, PROBE_EVERY_S, Outbox, new_message_id
from serve_app.storage.tables import callbacks
from tests.chaos.backend import Unreliable
from tests.support import postgres
from tests.support.backend import RESET
from tests.support.jobs import BROKEN, attempt_of, begin, new_job, started
from tests.support.stores import stores

URL = "http://127.0.0.1:8000/api/upload-video/result"
DONE = Outcome(result='{"text":"가","segments":[]}'.encode(), duration_s=1.0, processing_s=2.0)
HALF = Progress(percent=50, stage=Stage.DIARIZATION)
SEED = 2


@dataclass(frozen=True, slots=True)
class Post:
    at: float
    body: bytes
    headers: dict[str, str]

    @property
    def ended(self) -> bool:
        return json.loads(self.body)["status"] != "processing"


class Receiver:
    """In place of `CallbackClient`: `answer` makes a status of a post, None: there is no answer."""

    def __init__(self, answer=lambda _: 200, clock=time.time) -> None:
        self.posts: list[Post] = []
        self._answer = answer
        self._clock = clock

    async def post(self, _url, body, headers) -> Answer:
        self.posts.append(Post(self._clock(), body, dict(headers)))
        status = await asyncio.to_thread(self._answer, self.posts[-1])
        if status is None:
            raise NetError("timeout")
        return Answer(status=status, retry_after_s=None)


@pytest.fixture
def store(database, clock):
    return stores(database, queue_limit=100, running_limit=100, clock=clock)


def ended(store, job_id: str = "a", outcome: Outcome = DONE, url: str = URL) -> str:
    """A job that has just ended; its callback's id."""
    return store.attempts.finish_job(started(store, job_id, url), outcome).callback_id


async def told(sender, job_id: str, sequence: int) -> bool:
    """One progress callback."""
    body = payloads.progress(job_id, HALF, locale="ko")
    return await sender.send_progress(job_id, URL, body, message_id=new_message_id(), sequence=sequence)


def earliest(database) -> float | None:
    """When the next callback is due."""
    query = select(func.min(callbacks.c.next_try_at)).where(callbacks.c.state == CallbackState.PENDING)
    with database.read() as db:
        return db.execute(query).scalar()


async def deliver_due(sender, outbox) -> None:
    """What the manager does once a turn."""
    await asyncio.gather(*(sender.deliver(callback_id) for callback_id, *_ in outbox.due(20)))


def test_w2_processed_and_then_reset(store, outbox, clock, database):
    """W2: 30 % of the POSTs are processed and reset: all ends arrive, duplicates have the same id and bytes."""
    jobs = [f"job-{number}" for number in range(60)]

    async def run(backend: Unreliable) -> None:
        policy = CallbackPolicy(origins=("http://127.0.0.1:*",), networks=("127.0.0.0/8",))
        async with CallbackClient(policy) as client:
            sender = Sender(client, outbox)
            while (due_at := earliest(database)) is not None:
                clock.now = max(clock.now + 1, due_at)  # where the receiver fails, what is due waits for a probe
                await deliver_due(sender, outbox)

    with Unreliable(SEED) as backend:
        backend.mood = {200: 0.7, RESET: 0.3}
        for job_id in jobs:
            ended(store, job_id, url=backend.url)
        asyncio.run(run(backend))
        deadline = time.monotonic() + 20
        while sum(got.acknowledged for got in backend.received) < len(jobs):  # it notes it after its answer
            assert time.monotonic() < deadline
            time.sleep(0.01)
        print(f"seed {SEED}: {len(backend.received)} POSTs of {len(jobs)} ends, {backend.did}")
        by_job = {job_id: backend.of(job_id) for job_id in jobs}
    assert backend.did["reset"] >= 10
    for job_id, got in by_job.items():
        assert len({(each.message_id, each.raw, each.sequence) for each in got}) == 1, job_id
        assert [each.acknowledged for each in got].index(True) == len(got) - 1, job_id
        assert outbox.status(job_id).state is CallbackState.DELIVERED


@pytest.mark.parametrize(
    "outage", [(10 * MINUTE_S, 20, 5 * MINUTE_S), (24 * HOUR_S, 2, 30 * MINUTE_S)], ids=["10 min", "1 day"]
)
async def test_w3_a_backend_that_was_down(store, outbox, clock, database, outage):
    """W3: for ten minutes, for a day: each end arrives within the next step; one probe per half minute meanwhile."""
    down_s, jobs, step_s = outage
    back_at = clock.now + down_s
    receiver = Receiver(lambda _: 200 if clock.now >= back_at else None, clock)
    ids = [ended(store, f"job-{number}") for number in range(jobs)]
    sender = Sender(receiver, outbox)
    while (due_at := earliest(database)) is not None:
        clock.now = max(clock.now + 1, due_at)
        for callback_id, *_ in outbox.due(20):
            await sender.deliver(callback_id)
    arrived = {post.headers["webhook-id"]: post.at for post in receiver.posts if post.at >= back_at}
    assert set(arrived) == set(ids)
    assert len([post for post in receiver.posts if post.at >= back_at]) == jobs
    assert max(arrived.values()) <= back_at + step_s * (1 + JITTER) + PROBE_EVERY_S
    probes = [post.at for post in receiver.posts if post.at < back_at][BREAKER_FAILURES - 1 :]
    assert all(later - earlier >= PROBE_EVERY_S for earlier, later in pairwise(probes))
    assert {outbox.status(f"job-{number}").state for number in range(jobs)} == {CallbackState.DELIVERED}


@pytest.mark.parametrize("answer", [500, None], ids=["fails", "hangs"])
async def test_w4_progress_that_is_never_taken_holds_up_no_end(store, outbox, clock, answer):
    """W4: however often progress has failed at a receiver, the end goes there at once, and progress only as probes."""
    receiver = Receiver(lambda post: 200 if post.ended else answer, clock)
    attempt = started(store, callback_url=URL)
    sender = Sender(receiver, outbox)
    for _ in range(4 * BREAKER_FAILURES):
        await told(sender, "a", store.attempts.save_progress(attempt, HALF, spent_s=0))
        clock.now += 1
    assert await sender.deliver(store.attempts.finish_job(attempt, DONE).callback_id)
    assert receiver.posts[-1].ended
    assert receiver.posts[-1].at == clock.now  # when it was due, to the second
    assert len(receiver.posts) == BREAKER_FAILURES + 1


async def test_each_progress_callback_is_counted_by_what_came_of_it(store, outbox, clock, counted):
    """Taken, refused, unanswered; not sent since a newer one exists, or since the receiver keeps failing."""
    answers = iter([200, 503, *[None] * (BREAKER_FAILURES - 1)])
    attempt = started(store, callback_url=URL)
    sender = Sender(Receiver(lambda _: next(answers), clock), outbox)
    for _ in range(BREAKER_FAILURES + 3):
        sequence = store.attempts.save_progress(attempt, HALF, spent_s=0)
        await told(sender, "a", sequence)
    await told(sender, "a", sequence - 1)
    tries = {
        ("delivered", "none"): 1,
        ("failed", "http_5xx"): 1,
        ("failed", "timeout"): BREAKER_FAILURES - 1,
        ("circuit_open", "none"): 2,
        ("superseded", "none"): 1,
    }
    for (outcome, fault), count in tries.items():
        assert counted.total("progress_tries", outcome=outcome, fault=fault) == count, outcome
    assert counted.total("progress_tries") == sum(tries.values())
    assert counted.total("callback_tries") == 0


async def test_w4_progress_takes_no_probe_from_an_end(store, outbox, clock):
    """W4: a receiver was down, is back, and refuses progress as ever: progress does not use up what ends wait for."""
    up = False
    receiver = Receiver(lambda post: 200 if up and post.ended else 500, clock)
    attempt = started(store, "b", URL)
    callback_ids = [ended(store, f"job-{number}") for number in range(BREAKER_FAILURES)]
    sender = Sender(receiver, outbox)
    for callback_id in callback_ids:
        await sender.deliver(callback_id)
    up, back_at = True, clock.now
    while clock.now < back_at + 2 * PROBE_EVERY_S + 2:  # the first one probes, the others follow
        await told(sender, "b", store.attempts.save_progress(attempt, HALF, spent_s=0))  # first, each time
        await deliver_due(sender, outbox)
        clock.now += 1
    assert {outbox.status(f"job-{number}").state for number in range(BREAKER_FAILURES)} == {CallbackState.DELIVERED}


async def test_a_dead_receiver_hears_one_probe_from_all(store, outbox, clock):
    """Ends and progress together: nothing but one try per half minute, and progress flows when one got through."""
    up = False
    receiver = Receiver(lambda _: 200 if up else None, clock)
    attempt = started(store, "b", URL)
    for number in range(BREAKER_FAILURES + 2):
        ended(store, f"job-{number}")
    sender = Sender(receiver, outbox)
    for _ in range(200):
        await told(sender, "b", store.attempts.save_progress(attempt, HALF, spent_s=0))
        for callback_id, *_ in outbox.due(20):
            await sender.deliver(callback_id)
        clock.now += 1
    probes = [post.at for post in receiver.posts][BREAKER_FAILURES:]
    assert len(probes) >= 4
    assert all(later - earlier >= PROBE_EVERY_S for earlier, later in pairwise(probes))
    up = True
    for _ in range(round(2 * PROBE_EVERY_S) + 1):
        await told(sender, "b", store.attempts.save_progress(attempt, HALF, spent_s=0))
        clock.now += 1
    assert not receiver.posts[-1].ended
    assert receiver.posts[-1].at == clock.now - 1


async def test_w5_progress_of_before_is_not_sent_after_the_end(store, outbox):
    """W5: a driver that was stopped, a manager's heartbeat that was on its way: they find newer to tell."""
    receiver = Receiver()
    attempt = started(store, callback_url=URL)
    of_the_driver = store.attempts.save_progress(attempt, HALF, spent_s=0)
    [waiting] = store.queue.take_due_heartbeats(since_s=-100)
    begin(store, "a")
    callback_id = store.attempts.finish_job(attempt_of(store, "a", 2), DONE).callback_id
    sender = Sender(receiver, outbox)
    assert await sender.deliver(callback_id)
    for sequence in (of_the_driver, waiting.sequence):
        assert await told(sender, "a", sequence)  # nothing to try again
    store.jobs.delete_job("a")
    assert await told(sender, "a", waiting.sequence)
    assert [post.ended for post in receiver.posts] == [True]


def test_w5_a_claim_that_was_outlived_is_not_used(store, outbox, clock, monkeypatch):
    """W5: a sender is stopped between its claim and its POST; another has told the end meanwhile: it does not, too."""
    monkeypatch.setattr(sender_module, "LATEST_START_S", 0.2)
    receiver = Receiver()
    callback_id = ended(store)
    claim = outbox.claim

    def stopped(callback_id):
        claimed = claim(callback_id)
        clock.now += CLAIM_S + 1
        assert asyncio.run(Sender(receiver, Outbox(outbox._db, clock=clock)).deliver(callback_id))
        time.sleep(0.3)
        return claimed

    monkeypatch.setattr(outbox, "claim", stopped)
    assert not asyncio.run(Sender(receiver, outbox).deliver(callback_id))
    assert len(receiver.posts) == 1
    assert outbox.status("a").state is CallbackState.DELIVERED


def test_w5_a_claim_that_ran_out_frees_nobody_elses(store, outbox, clock):
    """W5: what comes late of an old try (a failure, a postponement) lets no third sender in beside the second."""
    callback_id = ended(store)
    first = outbox.claim(callback_id)
    clock.now += CLAIM_S + 1
    second = outbox.claim(callback_id)
    outbox.schedule_retry(first, after_s=1.0, error="timeout")
    outbox.postpone(first)
    clock.now += CLAIM_S - 1
    assert outbox.due(10) == []
    outbox.mark_delivered(second)
    outbox.schedule_retry(second, after_s=1.0, error="timeout")
    clock.now += 100 * HOUR_S
    assert outbox.due(10) == []


def test_w5_an_acknowledgement_outlasts_the_database(store, outbox, clock, monkeypatch):
    """W5: the database is away when the 2xx comes: it is stored when it is back, and the end is not sent again."""
    monkeypatch.setattr(sender_module, "SETTLE_AGAIN_S", 0.01)
    receiver, away = Receiver(), iter([True] * 3)
    callback_id, delivered = ended(store), outbox.mark_delivered

    def settle(callback):
        if next(away, False):
            raise OperationalError("", {}, Exception())
        delivered(callback)

    monkeypatch.setattr(outbox, "mark_delivered", settle)
    assert asyncio.run(Sender(receiver, outbox).deliver(callback_id))
    clock.now += 100 * HOUR_S
    assert outbox.due(10) == []
    assert len(receiver.posts) == 1


@pytest.mark.parametrize("answer", [200, 500, None])
async def test_w5_an_end_of_an_earlier_run_that_is_on_its_way(store, outbox, clock, answer):
    """W5: while it hangs the job is posted again and ends anew: the old one is not tried again."""
    old_id = ended(store, outcome=BROKEN)

    def answers(post) -> int | None:
        if post.headers["webhook-id"] == old_id:
            new_id = ended(store)
            assert asyncio.run(Sender(receiver, Outbox(outbox._db, clock=clock)).deliver(new_id))
            return answer
        return 200

    receiver = Receiver(answers)
    sender = Sender(receiver, outbox)
    await sender.deliver(old_id)
    clock.now += 100 * HOUR_S
    await deliver_due(sender, outbox)
    assert [json.loads(post.body)["status"] for post in receiver.posts] == ["failed", "completed"]
    assert outbox.status("a").state is CallbackState.DELIVERED
    assert outbox.status("a").attempts == 1


def test_w5_a_post_of_a_job_that_was_told_tells_nothing(store, outbox, clock):
    """W5: a retry of the backend after the acknowledged end owes it nothing more."""
    callback_id = ended(store)
    outbox.mark_delivered(outbox.claim(callback_id))
    assert not store.jobs.submit_job(new_job()).started
    clock.now += 100 * HOUR_S
    assert outbox.due(10) == []
    assert store.queue.take_due_heartbeats(since_s=0) == []
    assert store.jobs.fetch_job("a").state is JobState.COMPLETED


def dead(store, number: int, origin: str = "http://127.0.0.2:9") -> list[str]:
    """The callbacks of so many jobs whose receiver does not answer."""
    return [ended(store, f"dead-{n}", url=f"{origin}/result") for n in range(number)]


def test_w3_what_a_dead_receiver_is_owed_delays_no_other(store, outbox, clock):
    """W3: of one receiver a few are due at a time, of one that keeps failing one for each probe, none between."""
    dead(store, 40)
    clock.now += 1
    mine = ended(store, "mine")
    due = outbox.due(20)
    assert [receiver for *_, receiver in due].count("http://127.0.0.2:9") == PER_RECEIVER
    assert mine in {callback_id for callback_id, *_ in due}
    busy = {"http://127.0.0.2:9": PER_RECEIVER}
    assert [callback_id for callback_id, *_ in outbox.due(20, busy)] == [mine]
    assert len(outbox.due(20, {"http://127.0.0.2:9": PER_RECEIVER - 2})) == 3
    for _ in range(BREAKER_FAILURES):
        outbox.breaker.record_failure("http://127.0.0.2:9")
    assert [callback_id for callback_id, *_ in outbox.due(20)] == [mine]
    clock.now += PROBE_EVERY_S
    assert sorted(receiver for *_, receiver in outbox.due(20)) == ["http://127.0.0.1:8000", "http://127.0.0.2:9"]


async def test_w3_another_s_retry_comes_in_time_beside_a_dead_receivers_backlog(store, outbox, clock):
    """W3: with 200 owed to a receiver that is dead, another's is tried when it is due, and few commits are made."""
    dead(store, 90)
    mine = ended(store, "mine")
    tries = []

    class Receivers(Receiver):
        async def post(self, url, _body, _headers):
            tries.append((clock.now, url))
            return Answer(status=500 if "127.0.0.2" in url or len(mine_tries()) < 3 else 200, retry_after_s=None)

    def mine_tries():
        return [at for at, url in tries if url == URL]

    sender = Sender(Receivers(clock=clock), outbox)
    for _ in range(120):
        await deliver_due(sender, outbox)
        clock.now += 1
    assert outbox.status("mine").state is CallbackState.DELIVERED, mine
    waits = [later - earlier for earlier, later in pairwise(mine_tries())]
    assert [wait <= expected * (1 + JITTER) + 1 for wait, expected in zip(waits, (1, 5), strict=True)] == [True, True]
    assert len(tries) < 3 + BREAKER_FAILURES + PER_RECEIVER + 120 / PROBE_EVERY_S + 1


@pytest.mark.parametrize("status", [404, 500, 301])
async def test_w2_only_410_ends_the_tries(store, outbox, clock, status):
    """W2: a backend that is being deployed answers 404 for a while: the end is tried again, and arrives."""
    answers = iter([status, 200])
    sender = Sender(Receiver(lambda _: next(answers), clock), outbox)
    callback_id = ended(store)
    assert not await sender.deliver(callback_id)
    assert outbox.status("a").state is CallbackState.PENDING
    clock.now += 60
    assert await sender.deliver(callback_id)


async def test_w5_acknowledgements_and_deletions_do_not_deadlock(database, database_url, clock):
    """Backends delete or post again inside their handlers: the job's row is locked first, everywhere.

    A thousand acknowledgements on PostgreSQL, two for each job, which also counts deadlocks; SQLite serialises writers.
    """
    count = 50 if database.is_sqlite else 500
    store = stores(database, queue_limit=count, running_limit=count, clock=clock)
    outbox = store.outbox
    ids = [f"job-{number}" for number in range(count)]
    for job_id in ids:
        store.jobs.submit_job(new_job(job_id, URL))
    store.queue.admit_jobs()
    chance = random.Random(SEED)  # noqa: S311 - keeps no secret
    calls = []
    for number, job_id in enumerate(ids):
        finished = store.attempts.finish_job(Attempt.of(begin(store, job_id)), BROKEN)
        acknowledged = partial(outbox.mark_delivered, outbox.claim(finished.callback_id))
        again = partial(store.jobs.submit_job, new_job(job_id, URL))
        gone = partial(store.jobs.delete_job, job_id)
        of_job = [acknowledged, acknowledged, partial(outbox.redeliver, job_id), gone if number % 2 else again]
        calls += chance.sample(of_job, len(of_job))  # one job's calls meet each other, not those of other jobs
    answers = await asyncio.gather(*map(asyncio.to_thread, calls), return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    database.close()
    if not database.is_sqlite:
        assert postgres.deadlocks(database_url) == 0


async def test_what_the_caller_adds_is_in_every_callback(store, outbox, caplog, monkeypatch):
    """Its JSON in the body, its headers beside ours, in progress and end; a repeated POST replaces both meanwhile.

    No line of the log has the headers.
    """
    caplog.set_level("INFO", logger=logs.ROOT)
    monkeypatch.setattr(sender_module.log, "handlers", [caplog.handler])  # Ray's loggers pass nothing on to the root
    extras = CallbackExtras(custom_metadata='{"가":[1]}', headers={"authorization": "Bearer 1", "x-tenant": "t"})
    attempt = started(store, "a", URL, extras=extras)
    receiver = Receiver(answer=lambda post: 200 if post.headers["authorization"] == "Bearer 3" else 500)
    sender = Sender(receiver, outbox)
    await told(sender, "a", store.attempts.save_progress(attempt, HALF, spent_s=0))
    renewed = CallbackExtras(custom_metadata='{"b":2}', headers={"authorization": "Bearer 2"})
    store.jobs.submit_job(new_job("a", URL, extras=renewed))
    ending = store.attempts.finish_job(attempt, DONE)
    store.jobs.submit_job(new_job("a", URL, extras=CallbackExtras(headers={"authorization": "Bearer 3"})))
    await sender.deliver(ending.callback_id)
    progress, end = receiver.posts
    assert (json.loads(progress.body)["custom_metadata"], progress.headers["x-tenant"]) == ({"가": [1]}, "t")
    assert json.loads(end.body)["custom_metadata"] == {"b": 2}
    assert json.loads(end.body)["result"] == json.loads(DONE.result)
    assert [post.headers["authorization"] for post in receiver.posts] == ["Bearer 1", "Bearer 2"]  # ended: as it was
    assert all(post.headers["content-type"] == "application/json" for post in receiver.posts)
    logged = [str(vars(record)) for record in caplog.records]
    assert any("terminal callback" in line for line in logged)
    assert not [line for line in logged for part in ("Bearer", "x-tenant") if part in line]


async def test_a_redelivery_tells_the_names_as_a_new_message(store, outbox):
    """New id, higher number, the end's body with `speakers`, once for each change of names; else it is as it was."""
    end_body = partial(payloads.end_body, locale="ko", max_bytes=100_000)
    again = partial(outbox.redeliver, "a", end_body=end_body)
    first = ended(store)
    receiver = Receiver()
    sender = Sender(receiver, outbox)

    async def sent() -> Post:
        await deliver_due(sender, outbox)
        assert outbox.status("a").state is CallbackState.DELIVERED
        return receiver.posts[-1]

    posts = [await sent()]
    for names in (None, {"SPEAKER_00": "김철수"}, None, {"SPEAKER_00": "Anna"}, {}, None):
        if names is not None:
            assert store.jobs.name_speakers(store.jobs.fetch_job("a"), names)
            assert outbox.due(1) == []  # names alone send nothing
        assert again()
        posts.append(await sent())
    ids = [post.headers["webhook-id"] for post in posts]
    assert ids[:2] == [first, first]
    assert (ids[2], ids[5]) == (ids[3], ids[6])
    assert len(set(ids)) == 4
    numbers = [int(post.headers["x-ml-sequence"]) for post in posts]
    assert [number - numbers[0] for number in numbers] == [0, 0, 1, 1, 2, 3, 3]
    bare = posts[0].body
    bodies = [bare[:-1] + f',"speakers":{{"SPEAKER_00":"{name}"}}}}'.encode() for name in ("김철수", "Anna")]
    assert [post.body for post in posts] == [bare, bare, bodies[0], bodies[0], bodies[1], bare, bare]
    store.jobs.delete_job("a")
    started(store, "a", URL)
    assert store.jobs.fetch_job("a").sequence >= numbers[-1]  # posted again, it does not fall behind


async def test_an_end_that_is_under_way_does_not_settle_its_successor(store, outbox):
    """The try of a message whose place a new one took, with names: it counts for nothing, and the new one is sent."""
    ended(store)
    [(old, *_)] = outbox.due(1)
    under_way = outbox.claim(old)
    store.jobs.name_speakers(store.jobs.fetch_job("a"), {"SPEAKER_00": "Anna"})
    assert outbox.redeliver("a", end_body=partial(payloads.end_body, locale="ko", max_bytes=100_000))
    outbox.mark_delivered(under_way)
    outbox.schedule_retry(under_way, after_s=900, error="timeout")
    assert outbox.claim(old) is None
    [(new, *_)] = outbox.due(2)
    assert json.loads(outbox.claim(new).body)["speakers"] == {"SPEAKER_00": "Anna"}


def test_names_count_in_the_size_of_a_callback(store, outbox):
    """The body with them is no larger than the limit: the result gives way, and the names stay."""
    segments = [{"words": [{"confidence": 0.5}] * 50}]
    ended(store, outcome=Outcome(result=payloads.dump({"text": "", "segments": segments})))
    names = {f"SPEAKER_{number:02}": "가" * 100 for number in range(5)}
    job = store.jobs.name_speakers(store.jobs.fetch_job("a"), names)
    outcome = Outcome(result=store.jobs.fetch_result("a"))
    limit = len(payloads.end_body(job, outcome, locale="en", max_bytes=100_000)) - 1
    assert outbox.redeliver("a", end_body=partial(payloads.end_body, locale="en", max_bytes=limit))
    [(new, *_)] = outbox.due(1)
    body = outbox.claim(new).body
    assert len(body) <= limit
    assert json.loads(body)["speakers"] == names
    assert json.loads(body)["result"]["segments"] == [{"words": [{}] * 50}]


def test_metadata_counts_in_the_size_of_a_callback(store):
    """The body with it is no larger than the limit: the result gives way."""
    job = store.jobs.fetch_job(started(store, "a", URL, extras=CallbackExtras(custom_metadata='{"m":"x"}')).job_id)
    segments = [{"words": [{"confidence": 0.5}] * 50}]
    result = payloads.dump({"text": "", "segments": segments})
    outcome = Outcome(result=result, duration_s=1.0, processing_s=1.0)
    whole = payloads.end_body(job, outcome, locale="en", max_bytes=100_000)
    tight = payloads.end_body(job, outcome, locale="en", max_bytes=len(whole) - 1)
    assert json.loads(whole)["result"]["segments"] == segments
    assert len(tight) < len(whole)
    assert json.loads(tight)["custom_metadata"] == {"m": "x"}
