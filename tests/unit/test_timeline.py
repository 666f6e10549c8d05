from __future__ import annotations

import pytest
from click.testing import CliRunner

from serve_app.cli.main import main
from serve_app.jobs.job import Attempt, Outcome
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.pipeline.steps import StageTimer
from serve_app.settings import Settings
from serve_app.storage import timeline
from serve_app.storage.outbox import CLAIM_S, Outbox
from serve_app.storage.timeline import EventKind, Mark
from tests.support.edge import edge as edge_over
from tests.support.jobs import BROKEN, CALLBACK_URL, begun, new_job
from tests.support.live_server import serving
from tests.support.stores import fail, stores

DONE = Outcome(
    result=b'{"text":"","segments":[],"metadata":{"warnings":["it is only a test"]}}', duration_s=1.0, processing_s=2.0
)
NOW = 1_000_000.0


class World:
    """The store and the outbox under one clock that moves by a second with every look."""

    def __init__(self, database) -> None:
        self.now = NOW
        self.database = database
        self.store = stores(database, queue_limit=20, running_limit=2, clock=self.clock)
        self.outbox = Outbox(database, clock=self.clock)

    def clock(self) -> float:
        self.now += 1
        return self.now

    def submit(self, job_id="a", callback=CALLBACK_URL) -> None:
        self.store.jobs.submit_job(new_job(job_id, callback))

    def begin(self, job_id="a") -> Attempt:
        return begun(self.store, job_id)

    def told(self, job_id="a") -> list[tuple]:
        return [(e.run, e.attempt, e.kind.value, e.detail) for e in self.store.jobs.fetch_timeline(job_id)]


@pytest.fixture
def world(database):
    return World(database)


def test_a_job_s_whole_life_is_told(world):
    """A failed run, a second one with two attempts, and every try of its callback: in order, each once."""
    world.submit()
    world.store.attempts.finish_job(world.begin(), BROKEN)
    world.submit()
    assert world.store.attempts.give_back(world.begin(), spent_s=0)
    world.begin()
    ending = world.store.attempts.finish_job(world.begin(), DONE)
    fail(world.outbox, world.outbox.claim(ending.callback_id), error="http_500")
    world.now += CLAIM_S
    world.outbox.give_up(world.outbox.claim(ending.callback_id), error="http_410")
    world.outbox.redeliver("a")
    world.outbox.mark_delivered(world.outbox.claim(ending.callback_id))
    assert world.told() == [
        (1, 0, "queued", None),
        (1, 0, "started", None),
        (1, 1, "attempt", None),
        (1, 1, "failed", "DOWNLOAD_ERROR"),
        (2, 0, "queued", None),
        (2, 0, "started", None),
        (2, 1, "attempt", None),
        (2, 0, "given_back", None),
        (2, 1, "attempt", None),
        (2, 2, "attempt", None),
        (2, 2, "completed", None),
        (2, 2, "callback_failed", "try 1: http_500"),
        (2, 2, "callback_undelivered", "try 2: http_410"),
        (2, 2, "callback_renewed", None),
        (2, 2, "callback_delivered", "try 1"),
    ]
    times = [event.at for event in world.store.jobs.fetch_timeline("a")]
    assert times == sorted(times)


def test_what_changed_nothing_is_not_told(world):
    """A known POST, a write of an attempt that does not count, a callback settled twice."""
    world.submit()
    world.submit()
    stale = world.begin()
    world.begin()
    assert world.store.attempts.finish_job(stale, DONE) is None
    assert not world.store.attempts.give_back(stale, spent_s=0)
    world.store.jobs.cancel_job("a", BROKEN)
    ending = world.store.attempts.finish_job(world.begin(), BROKEN)
    claimed = world.outbox.claim(ending.callback_id)
    world.outbox.mark_delivered(claimed)
    fail(world.outbox, claimed, error="timeout")
    kinds = [kind for _, _, kind, _ in world.told()]
    assert kinds == [
        "queued",
        "started",
        "attempt",
        "attempt",
        "cancel_requested",
        "attempt",
        "failed",
        "callback_delivered",
    ]


def test_the_event_and_the_change_are_one(world, monkeypatch):
    """Where the event cannot be written nothing has changed."""
    world.submit()
    attempt = world.begin()

    def fails(*_args, **_options):
        raise RuntimeError

    monkeypatch.setattr(timeline, "record", fails)
    with pytest.raises(RuntimeError):
        world.store.attempts.finish_job(attempt, DONE)
    assert world.store.jobs.fetch_job("a").state == "running"
    assert world.outbox.due(10) == []


def test_the_timeline_goes_with_the_job(world):
    """Deleting a job leaves no event behind; a very long timeline shows its newest events."""
    world.submit(callback=None)
    with world.database.write() as db:
        for number in range(timeline.NEWEST):
            timeline.record(db, "a", timeline.EventKind.ATTEMPT, at=float(number))
    assert len(world.told()) == timeline.NEWEST
    assert world.told()[0][2] == "attempt"
    world.store.attempts.finish_job(world.begin(), DONE)
    assert world.store.jobs.delete_job("a")
    assert world.told() == []


def test_stages_are_told_with_the_next_write(world):
    """What the stages did rides on progress, a return and the end, under its attempt; a stale attempt tells nothing."""

    def mark(kind, stage):
        return [Mark(at=world.clock(), kind=kind, stage=stage)]

    began, ended = EventKind.STAGE_STARTED, EventKind.STAGE_ENDED
    half = Progress(percent=50, stage=Stage.DIARIZATION)
    world.submit()
    first = world.begin()
    world.store.attempts.save_progress(first, half, spent_s=0, marks=mark(began, "extraction"))
    world.store.attempts.give_back(first, spent_s=0, marks=mark(ended, "extraction"))
    second = world.begin()
    third = world.begin()
    assert world.store.attempts.save_progress(second, half, spent_s=0, marks=mark(began, "lost")) is None
    assert world.store.attempts.finish_job(second, DONE, mark(ended, "lost")) is None
    world.store.attempts.finish_job(third, DONE, mark(began, "detection"))
    assert [told for told in world.told() if told[2].startswith("stage") or told[2] == "given_back"] == [
        (1, 1, "stage_started", "extraction"),
        (1, 1, "stage_ended", "extraction"),
        (1, 0, "given_back", None),
        (1, 2, "stage_started", "detection"),
    ]


def test_a_stage_whose_parts_overlap_is_told_once():
    """Began with its first part, ended with its last, also where that fails; each is taken once."""
    clock = StageTimer()
    first, second = clock.time("analysis"), clock.time("analysis")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert [(mark.kind, mark.stage) for mark in clock.take()] == [(EventKind.STAGE_STARTED, "analysis")]
    with pytest.raises(ZeroDivisionError), clock.time("prosody"):
        _ = 1 / 0
    second.__exit__(None, None, None)
    kinds = [(mark.kind.value, mark.stage) for mark in clock.take()]
    assert kinds == [("stage_started", "prosody"), ("stage_ended", "prosody"), ("stage_ended", "analysis")]
    assert clock.take() == []


@pytest.fixture
def url(world):
    settings = Settings(backend_url="https://backend.example")
    with serving(edge_over(settings, world.database, world.store, world.outbox)) as url:
        yield url


def ask(url, *words):
    answer = CliRunner().invoke(main, [*words, "--server", url], env={"COLUMNS": "120"})
    return answer.exit_code, " ".join(answer.output.split())


def test_an_operator_sees_the_jobs(world, url):
    """Newest first, a page at a time, by state; an unknown job is an error in a sentence."""
    for number in range(3):
        world.submit(f"job-{number}")
    world.store.attempts.finish_job(world.begin("job-0"), BROKEN)
    code, text = ask(url, "jobs", "--limit", "2")
    assert code == 0
    assert text.index("job-2") < text.index("job-1") < text.index("There are more: --after job-1")
    assert "job-0" not in text
    assert "job-0 failed 0 DOWNLOAD_ERROR: no" in ask(url, "jobs", "--state", "failed")[1]
    owed = ask(url, "jobs", "--callback", "pending")[1]
    assert ("job-0" in owed, "job-1" in owed) == (True, False)
    assert ask(url, "jobs", "--callback", "delivered") == (0, "No jobs.")
    assert ask(url, "jobs", "--state", "completed") == (0, "No jobs.")
    code, text = ask(url, "jobs", "show", "nothing")
    assert (code, "[JOB_NOT_FOUND]" in text) == (1, True)


def test_an_operator_sees_what_happened_to_a_job(world, url):
    """States, attempts and callbacks in order, with seconds since the POST; and never the signed URL."""
    world.submit()
    ending = world.store.attempts.finish_job(world.begin(), DONE)
    world.outbox.give_up(world.outbox.claim(ending.callback_id), error="http_410")
    code, text = ask(url, "jobs", "show", "a")
    assert code == 0
    assert "Job: a Status: completed, 100 %" in text
    assert "Warning: it is only a test" in text
    assert "Callback: state undelivered, attempts 1, last_error http_410" in text
    assert "1970-01-12 13:46:41 0.0 1 0 queued" in text
    assert text.index("queued") < text.index("1 1 attempt") < text.index("1 1 callback undelivered try 1: http_410")
    assert "secret" not in text
    assert CliRunner().invoke(main, ["jobs", "--server", url, "show", "a"]).exit_code == 0


def test_an_operator_cancels_a_job(world, url):
    """`cancel` ends a job that waits; of one that has ended nothing is deleted."""
    world.submit()
    assert ask(url, "cancel", "a") == (0, "The job ends as CANCELLED (failed).")
    code, text = ask(url, "cancel", "a")
    assert (code, "[JOB_CONFLICT]" in text) == (1, True)
    assert world.store.jobs.fetch_job("a").error_code == "CANCELLED"


def test_an_operator_has_the_end_told_once_more(world, url):
    """`redeliver` makes the callback due again; before the end it is refused."""
    world.submit()
    code, text = ask(url, "redeliver", "a")
    assert (code, "[JOB_CONFLICT]" in text) == (1, True)
    ending = world.store.attempts.finish_job(world.begin(), DONE)
    world.outbox.mark_delivered(world.outbox.claim(ending.callback_id))
    assert world.outbox.due(10) == []
    code, text = ask(url, "redeliver", "a")
    assert (code, "ml-server jobs show a" in text) == (0, True)
    assert [row[:2] for row in world.outbox.due(10)] == [(ending.callback_id, "a")]
