"""D2 and W1 without Ray: real driver, pipeline, store and sender over instant stages, in killable processes."""

from __future__ import annotations

import json
import random
import signal
import statistics
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait

import pytest

from tests.chaos.checker import comparable
from tests.chaos.fuse import EDGES, Fuse
from tests.chaos.light import drive, nursery, opened
from tests.support.backend import Backend
from tests.support.jobs import new_job
from tests.support.leaks import WATCH
from tests.support.sources import SECRET

DELAYS_S = (0.0, 0.003, 0.01, 0.03)
"""From the edge to the kill, each up to half as much again: the first and the last by default, all behind `full`."""
AT_ONCE = 2
WITHIN_S = 60
SEED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A job whose driver was killed."""

    job_id: str
    edge: str
    exit_code: int
    resumed_s: float
    """From the death to the driver's next word to the backend."""


class Bed:
    """A database, a backend, and drivers that come and go."""

    def __init__(self, options, stores, backend: Backend, doomed: dict) -> None:
        self.options = options
        self.store = stores
        self.outbox = stores.outbox
        self.backend = backend
        self.doomed = doomed
        self._context = nursery()
        self._turn = threading.Lock()
        """A start looks after all processes, and two looks at the end of one read its exit code from one pipe."""

    def submit(self, job_id: str) -> str:
        url = f"{self.backend.url}/api/upload-video/result"
        video = f"http://127.0.0.1:1/a.mp4?{SECRET}"
        self.store.jobs.submit_job(new_job(job_id, url, video_url=video, video_expires_at=time.time() + 600))
        self.store.queue.admit_jobs()
        return job_id

    def driver(self, job_id: str, fuse: Fuse | None = None):
        return self.drivers([job_id], fuse)

    def drivers(self, job_ids: list[str], fuse: Fuse | None = None):
        process = self._context.Process(target=drive, args=(self.options, job_ids, fuse), daemon=True)
        with self._turn:
            process.start()
        return process

    def wait(self, process) -> int | None:
        """Until it has ended; its exit code, None where it has not."""
        wait([process.sentinel], WITHIN_S)
        with self._turn:
            process.join(0)
            return process.exitcode

    def kill_at(self, edge: str, delay_s: float) -> Story:
        """One job: its driver killed there, a second one that ends it."""
        job_id = self.submit(f"{edge}-{uuid.uuid4()}")
        first = self.driver(job_id, Fuse(edge=edge, delay_s=delay_s))
        if edge == "unacknowledged":
            self.doomed[job_id] = first, delay_s
        exit_code = self.wait(first)
        died_at = time.monotonic()
        second = self.driver(job_id)
        assert self.wait(second) == 0
        spoke = [got.at for got in self.backend.of(job_id) if got.at > died_at]
        return Story(
            job_id=job_id,
            edge=edge,
            exit_code=exit_code,
            resumed_s=spoke[0] - died_at if spoke else time.monotonic() - died_at,
        )


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    doomed: dict = {}
    deaths = threading.Lock()

    def answer(new, _before) -> int:
        """Acknowledge, but kill who tells the end of a doomed job, and never answer."""
        with deaths:
            process, delay_s = doomed.pop(new.body["job_id"], (None, 0)) if new.ended else (None, 0)
        if process is None:
            return 200
        time.sleep(delay_s)
        process.kill()
        return 0

    folder = tmp_path_factory.mktemp("killed")
    options = {"state_dir": str(folder)}
    with Backend(answer) as backend, opened(options) as stores:
        yield Bed(options, stores, backend, doomed)
    WATCH.left(folder)


@pytest.fixture(scope="module")
def undisturbed(bed):
    job_id = bed.submit("undisturbed")
    process = bed.driver(job_id)
    assert bed.wait(process) == 0
    result = json.loads(bed.store.jobs.fetch_result(job_id))
    assert len(result["segments"]) == 4
    assert not any("FAILED" in warning["code"] for warning in result["metadata"]["warning_codes"])
    return comparable(result)


def kill_everywhere(bed, delays_s) -> list[Story]:
    chance = random.Random(SEED)  # noqa: S311 - repeatable
    plan = [(edge, delay_s * chance.uniform(1, 1.5)) for delay_s in delays_s for edge in EDGES]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        stories = list(threads.map(lambda each: bed.kill_at(*each), plan))
    resumed_s = sorted(story.resumed_s for story in stories)
    print(
        f"seed {SEED}: {len(stories)} kills of the driver, resumed after {statistics.median(resumed_s):.2f} s (median),"
        f" {resumed_s[-1]:.2f} s (longest)"
    )
    return stories


def check(bed, undisturbed, stories) -> None:
    """Each job was killed, none is lost, each has one result, the undisturbed one, and one end that was told."""
    for story in stories:
        assert story.exit_code == -signal.SIGKILL, story
        job = bed.store.jobs.fetch_job(story.job_id)
        assert job.state == "completed", (story, job.state)
        assert comparable(json.loads(bed.store.jobs.fetch_result(story.job_id))) == undisturbed, story
        assert bed.outbox.status(story.job_id).state == "delivered", story
        received = bed.backend.of(story.job_id)
        finals = {(got.headers["webhook-id"], got.raw) for got in received if got.ended}
        assert len(finals) == 1, story
        assert received[-1].ended, story
        assert any(got.ended and got.answered == 200 for got in received), story
        assert job.attempt <= 2, story


@pytest.mark.parametrize("delays_s", [DELAYS_S[::3], pytest.param(DELAYS_S, marks=pytest.mark.full)])
def test_d2_kills_of_the_driver_lose_and_double_nothing(bed, undisturbed, delays_s):
    """Twelve edges, two or four kills each, at once to tens of milliseconds later: none lost, one result, all equal."""
    stories = kill_everywhere(bed, delays_s)
    assert len(stories) == 12 * len(delays_s)
    check(bed, undisturbed, stories)
    first_of_each = stories[: len(EDGES)]
    attempts = {story.edge: bed.store.jobs.fetch_job(story.job_id).attempt for story in first_of_each}
    assert attempts == dict.fromkeys(EDGES, 2) | dict.fromkeys(("accepted", "committed", "unacknowledged"), 1)


def killed_before_the_post(bed, kills: int) -> None:
    """JobActors killed between the commit and their first POST; then one process delivers what it finds."""

    def kill(number: int) -> str:
        job_id = bed.submit(f"w1-{number}-{uuid.uuid4()}")
        process = bed.driver(job_id, Fuse(edge="committed", delay_s=0.0))
        assert bed.wait(process) == -signal.SIGKILL
        return job_id

    with ThreadPoolExecutor(AT_ONCE) as threads:
        ids = list(threads.map(kill, range(kills)))
    assert {bed.store.jobs.fetch_job(job_id).state for job_id in ids} == {"completed"}
    assert {bed.outbox.status(job_id).state for job_id in ids} == {"pending"}
    assert not any(got.ended for job_id in ids for got in bed.backend.of(job_id))
    restarted = bed.drivers(ids)
    assert bed.wait(restarted) == 0
    assert {bed.outbox.status(job_id).state for job_id in ids} == {"delivered"}
    for job_id in ids:
        received = bed.backend.of(job_id)
        assert [got.answered for got in received if got.ended] == [200]
        assert received[-1].body["result"] == json.loads(bed.store.jobs.fetch_result(job_id))


@pytest.mark.parametrize("kills", [16, pytest.param(50, marks=pytest.mark.full)])
def test_w1_kills_between_commit_and_post(bed, kills):
    """W1: the end and the callback that is due are one commit: killed before the POST, all are delivered afterwards."""
    killed_before_the_post(bed, kills)


def test_w1_kills_between_commit_and_post_on_postgresql(tmp_path, postgres_server):
    """W1: the same with the other database, five times."""
    with postgres_server.database(synchronous_commit="off") as url, Backend() as backend:
        options = {"state_dir": str(tmp_path), "database_url": url}
        with opened(options) as stores:
            killed_before_the_post(Bed(options, stores, backend, {}), 5)
