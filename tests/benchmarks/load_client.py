"""Requests at a steady rate from a process of their own, each one's latency written down.

Each is sent when it is due, whether the ones before were answered or not, as independent callers would.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

TIMEOUT_S = 60
NOT_ANSWERED = 0
"""In place of a status: the connection broke, or no answer came in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask. A `video_url` makes each request the POST of a fresh job, none makes it GET /health."""

    server_url: str
    rate_per_s: float
    """0: each connection's next one right after the answer to the one before."""
    count: int
    """At most so many."""
    connections: int = 1
    """Without a rate."""
    video_url: str | None = None


@dataclass(slots=True)
class Answers:
    """What came of it: seconds and statuses as they came, and the ids that were posted."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)


async def ask(plan: Plan, ending: Event) -> Answers:
    """Carry out the plan, or as much of it as there is time for before `ending`."""
    answers = Answers()
    async with httpx.AsyncClient(base_url=plan.server_url, timeout=TIMEOUT_S, trust_env=False) as http:
        await http.get("/health")  # a connection is there before the clock runs
        async with asyncio.TaskGroup() as sent:
            todo = iter(range(plan.count))

            async def send() -> None:
                due = time.perf_counter()
                for _ in todo:
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    if ending.is_set():
                        return
                    request = sent.create_task(_once(http, plan, answers))
                    if plan.rate_per_s:
                        due += 1 / plan.rate_per_s
                    else:
                        await request

            for _ in range(1 if plan.rate_per_s else plan.connections):
                sent.create_task(send())
    return answers


async def _once(http: httpx.AsyncClient, plan: Plan, answers: Answers) -> None:
    began = time.perf_counter()
    try:
        status = await _status(http, plan, answers)
    except httpx.HTTPError:
        status = NOT_ANSWERED
    answers.seconds.append(time.perf_counter() - began)
    answers.statuses.append(status)


async def _status(http: httpx.AsyncClient, plan: Plan, answers: Answers) -> int:
    if plan.video_url is None:
        return (await http.get("/health")).status_code
    answers.job_ids.append(str(uuid.uuid4()))
    content = {"job_id": answers.job_ids[-1], "video_url": plan.video_url}
    return (await http.post("/api/upload-video/process-video", json=content)).status_code


class Asking:
    """A plan that is being carried out beside us."""

    def __init__(self, plan: Plan) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._ending = spawning.Event()
        self._ours, theirs = spawning.Pipe(duplex=False)
        self._process = spawning.Process(target=_work, args=(plan, self._ending, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def answers(self) -> Answers:
        """Wait until the plan is carried out."""
        answers: Answers = self._ours.recv()
        self._process.join()
        return answers

    def stop(self) -> Answers:
        """End it; what came so far."""
        self._ending.set()
        return self.answers()


def _work(plan: Plan, ending: Event, results: Any) -> None:
    results.send(asyncio.run(ask(plan, ending)))


@contextmanager
def health_beside(server_url: str, *, rate_per_s: float = 5) -> Iterator[Answers]:
    """Ask for the health while the block runs; the yielded answers are filled in at its end."""
    answers = Answers()
    asking = Asking(Plan(server_url=server_url, rate_per_s=rate_per_s, count=1_000_000))
    try:
        yield answers
    finally:
        came = asking.stop()
        answers.seconds, answers.statuses = came.seconds, came.statuses
