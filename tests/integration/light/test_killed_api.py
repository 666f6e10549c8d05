"""D1 without Ray: the real HTTP edge in a process that is killed after each of its answers."""

from __future__ import annotations

import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from serve_app.cli.child_process import free_port
from tests.chaos.light import drive, nursery, opened, serve
from tests.support.backend import Backend
from tests.support.leaks import WATCH
from tests.support.sources import SECRET

POST = "/api/upload-video/process-video"
VIDEO = f"http://127.0.0.1:1/a.mp4?{SECRET}"
LATEST_KILL_S = 0.05
WITHIN_S = 60
SEED = 1
EDGES = 2
"""At once, as many as a small machine has cores."""


class Edge:
    """An HTTP edge that can be killed and started again at the same address, over the same database."""

    def __init__(self, folder, **options) -> None:
        self.options = {"state_dir": str(folder)} | options
        self._context = nursery()
        self._port = free_port()
        self._process = None
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._port}",
            headers={"connection": "close"},
            trust_env=False,
            timeout=30,
            event_hooks={"response": [WATCH.answer]},
        )

    def start(self) -> None:
        self._process = self._context.Process(target=serve, args=(self.options, self._port), daemon=True)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WITHIN_S)

    def close(self) -> None:
        self._http.close()

    def post(self, job_id: str, backend: Backend) -> httpx.Response:
        """As soon as it listens."""
        content = {"job_id": job_id, "video_url": VIDEO, "fastapi_base_url": backend.url}
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                return self._http.post(POST, json=content)
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.005)

    def run(self, job_ids) -> None:
        """What the rest of the server does with the jobs."""
        with opened(self.options) as store:
            store.queue.admit_jobs()
        process = self._context.Process(target=drive, args=(self.options, job_ids), daemon=True)
        process.start()
        process.join(WITHIN_S)
        assert process.exitcode == 0


def post_and_kill(edge: Edge, backend: Backend, chance: random.Random, posts: int) -> list[str]:
    """Kill after each answer, and start again. The ids that were answered with 200."""
    answered = []
    for _ in range(posts):
        edge.start()
        job_id = str(uuid.uuid4())
        answer = edge.post(job_id, backend)
        time.sleep(chance.uniform(0, LATEST_KILL_S))
        edge.kill()
        assert answer.status_code == 200, answer.text
        answered.append(job_id)
    return answered


def answered_means_stored(posts: int, folder, **options) -> None:
    """Kill edges that share a database, look for what they answered; then let it end and be told."""
    edges = [Edge(folder, **options) for _ in range(EDGES)]
    chances = [random.Random(SEED + number) for number in range(EDGES)]  # noqa: S311 - repeatable
    with Backend() as backend, opened(edges[0].options) as store, ThreadPoolExecutor(EDGES) as threads:
        groups = threads.map(post_and_kill, edges, [backend] * EDGES, chances, [posts // EDGES] * EDGES)
        answered = [job_id for group in groups for job_id in group]
        assert len(answered) == posts
        assert [job_id for job_id in answered if store.jobs.fetch_job(job_id) is None] == []
        edges[0].run(answered)
        assert {store.jobs.fetch_job(job_id).state for job_id in answered} == {"completed"}
        assert {store.outbox.status(job_id).state for job_id in answered} == {"delivered"}
        assert all(backend.of(job_id)[-1].ended for job_id in answered)
    for edge in edges:
        edge.close()
    WATCH.left(folder, options.get("database_url"))


@pytest.mark.parametrize("posts", [16, pytest.param(50, marks=pytest.mark.full)])
def test_d1_answered_means_stored(tmp_path, posts):
    """So many POSTs, the server killed with -9 0-50 ms after each answer: all of them exist and end."""
    answered_means_stored(posts, tmp_path)


@pytest.mark.parametrize("posts", [4, pytest.param(10, marks=pytest.mark.full)])
def test_d1_answered_means_stored_in_postgresql(tmp_path, postgres_server, posts):
    """The same with the other database."""
    with postgres_server.database(synchronous_commit="off") as url:
        answered_means_stored(posts, tmp_path, database_url=url)
