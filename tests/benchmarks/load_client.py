"""Requests at a steady rate from a process of their own, each one's latency written down.

Each is sent when it is due, whether the ones before were answered or not, as independent callers would.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.customer import Customer, Posted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

TIMEOUT_S = 60
UNDER_WAY = 100
"""Requests with a rate that are not answered yet, at the most."""


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
    """What came of it: seconds and statuses, and the ids that were posted."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)

    def __add__(self, other: Answers) -> Answers:
        return Answers(self.seconds + other.seconds, self.statuses + other.statuses, self.job_ids + other.job_ids)


def ask(plan: Plan, ending: Event) -> Answers:
    """Carry out the plan, or as much of it as there is time for before `ending`."""
    with httpx.Client(base_url=plan.server_url, timeout=TIMEOUT_S, trust_env=False) as http:

        def send(order: Posted) -> httpx.Response:
            if plan.video_url is None:
                return http.get("/health")
            content = {"job_id": order.job_id, "video_url": plan.video_url}
            return http.post("/api/upload-video/process-video", json=content)

        http.get("/health")  # a connection is there before the clock runs
        customer = Customer(send, at_once=UNDER_WAY if plan.rate_per_s else plan.connections, asks_again=False)
        due = time.perf_counter()
        for _ in range(plan.count):
            if ending.wait(max(0.0, due - time.perf_counter())):
                break
            customer.order()
            due += 1 / plan.rate_per_s if plan.rate_per_s else 0.0
        customer.wait()
    job_ids = [each.job_id for each in customer.posted] if plan.video_url else []
    return Answers([each.took_s for each in customer.posted], [each.status for each in customer.posted], job_ids)


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
    results.send(ask(plan, ending))


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
