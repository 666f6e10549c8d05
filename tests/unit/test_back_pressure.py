"""D8: more jobs than the server can take, on a real socket, with nobody working on them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serve_app.jobs.job import Attempt, Outcome
from serve_app.orchestration.opening import open_stores
from serve_app.settings import Settings
from serve_app.storage.database import open_database
from tests.support.edge import edge as edge_over
from tests.support.jobs import begin
from tests.support.live_server import serving

POST = "/api/upload-video/process-video"
GROWTH_BYTES = 30_000_000


def rss_bytes() -> int:
    """This process's memory: server and callers."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def flood(url: str, posts: int, callers: int) -> tuple[list[httpx.Response], float, int]:
    """All answers, the seconds that they took together, and how memory grew after the first third."""
    answers: list[httpx.Response] = []
    numbers = iter(range(posts))
    warm: list[int] = []

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:

        async def caller() -> None:
            for number in numbers:
                job = {"job_id": f"job-{number}", "video_url": "http://127.0.0.1:9/a.mp4"}
                answers.append(await http.post(POST, json=job))
                if len(answers) == posts // 3:
                    warm.append(rss_bytes())

        began = time.monotonic()
        await asyncio.gather(*(caller() for _ in range(callers)))
    return answers, time.monotonic() - began, rss_bytes() - warm[0]


@dataclass(frozen=True, kw_only=True)
class Flood:
    """How many POSTs, and what is asked of them: fewer, and less, beside another test that starts servers."""

    posts: int
    callers: int
    within_s: float
    answer_s: float
    late: int


FLOODS = [
    Flood(posts=300, callers=15, within_s=120, answer_s=15, late=150),
    pytest.param(Flood(posts=1000, callers=50, within_s=10, answer_s=5, late=0), marks=pytest.mark.full),
]


@pytest.mark.parametrize("wanted", FLOODS)
def test_d8_a_thousand_posts_in_ten_seconds(tmp_path, wanted):
    """10 run, 100 wait, the others get 503 with Retry-After; no 500, memory flat; then places are free again."""
    net = {"schemes": ["http"], "ports": "*", "networks": ["127.0.0.0/8"]}
    settings = Settings(profile="local", state_dir=tmp_path, extractor={"net": net})
    database = open_database(settings)
    store = open_stores(settings, database)
    over = threading.Event()

    def admit() -> None:
        while not over.wait(0.05):
            store.queue.admit_jobs()

    manager = threading.Thread(target=admit)
    manager.start()
    try:
        with serving(edge_over(settings, database, store)) as url:
            answers, took_s, growth_bytes = asyncio.run(flood(url, wanted.posts, wanted.callers))
            print(f"{wanted.posts} POSTs in {took_s:.1f} s, memory {growth_bytes / 1e6:+.1f} MB")
            refused = [answer for answer in answers if answer.status_code == 503]
            codes = Counter(answer.json()["error"]["code"] for answer in refused)
            late = codes.pop("SERVICE_UNAVAILABLE", 0)  # stored or not: so that a busy machine answers in time
            assert Counter(answer.status_code for answer in answers).keys() == {200, 503}
            assert 110 - late <= wanted.posts - len(refused) <= 110
            assert codes.keys() == {"INSUFFICIENT_RESOURCES"}
            assert late <= wanted.late
            assert max(answer.elapsed.total_seconds() for answer in answers) < wanted.answer_s
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            counts = store.jobs.count_jobs()
            assert (counts.running, counts.queued) == (10, 100)
            assert took_s < wanted.within_s
            assert growth_bytes < GROWTH_BYTES
            for job in store.queue.fetch_running_jobs()[:3]:
                begun = begin(store, job.job_id)
                store.attempts.finish_job(Attempt.of(begun), Outcome(error_code="X"))
            again = asyncio.run(flood_again(url))
            assert Counter(again) == {200: 3, 503: 7}
    finally:
        over.set()
        manager.join()
        database.close()


async def flood_again(url: str) -> list[int]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        jobs = [{"job_id": f"again-{n}", "video_url": "http://127.0.0.1:9/a.mp4"} for n in range(10)]
        return [answer.status_code for answer in await asyncio.gather(*(http.post(POST, json=job) for job in jobs))]
