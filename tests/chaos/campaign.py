"""One run of the checker: a server, a customer, a backend, a nemesis; then peace, and the records.

quiet references ─▶ jobs and harm for a while ─▶ peace until all has ended and is told ─▶ history

Knows nothing of what is right: the checker judges.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from sqlalchemy import delete, update

from deployments.types import SAMPLE_RATE_HZ
from serve_app.storage.database import Database
from serve_app.storage.tables import callbacks, receivers
from tests.chaos.backend import MOODS, Unreliable
from tests.chaos.history import History
from tests.chaos.nemesis import PAUSE_S, Nemesis
from tests.chaos.server import MortalServer
from tests.chaos.watcher import Watcher
from tests.support.backend import ENDED
from tests.support.customer import Customer
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REFERENCE_WITHIN_S = 120.0
LENGTHS_S = (3.0, 4.5, 6.0, 8.0)
"""Of the videos."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of it."""

    seed: int
    seconds: float
    """Of harm."""
    jobs: int
    """At the most."""
    every_s: float = 2.0
    """From one POST to the next, in the mean."""
    videos: int = len(LENGTHS_S)
    server_ends_every_s: float | None = 180.0
    """kill -9 of the whole server, or of its Ray, in turn: rarely, for its start takes long. None: never."""
    opening: Sequence[tuple[str, str]] = ()
    """Acts to begin with; then the deck."""
    pause_s: tuple[float, float] = PAUSE_S
    """Between acts."""
    mood: str = "usual"
    """Of the backend, while nobody spoils it."""
    patience_s: float = 60.0
    """How long callbacks may wait for their own time in the end; then the clock is moved for them."""
    settle_s: float = 120.0
    """How long nothing may come to its end, in the end: what waits or runs then is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    plan: Plan
    history: History
    backend_did: dict[str, int]
    settled_s: float
    """From peace to the last end and the last callback."""
    hurried: int
    """Callbacks whose next try was moved up in the end."""
    failed_starts: int
    """Of the server, after its ends."""


def run(plan: Plan, keep: Path | None = None) -> Campaign:
    """Do it all, the server's state and log in the folder `keep` where one is named.

    Raises AssertionError where the server does not even start or does not do the references.
    """
    with ExitStack() as stack:
        folder = keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True))
        )
        folder.mkdir(parents=True, exist_ok=True)
        backend = stack.enter_context(Unreliable(plan.seed))
        videos = _videos(folder, stack.enter_context(Sources()), plan.videos)
        server = stack.enter_context(MortalServer(folder))
        watcher = Watcher(server, seed=plan.seed)
        stack.callback(watcher.close)
        watcher.start()
        customer = Customer(lambda order: server.post(order.job_id, videos[order.video], backend.url))
        stack.callback(customer.give_up)
        references = _references(server, watcher, customer, videos)
        nemesis = Nemesis(
            server, backend, customer, watcher, seed=plan.seed, opening=plan.opening, pause_s=plan.pause_s
        )
        _harm(plan, customer, sorted(videos), nemesis, backend)
        began = time.monotonic()
        hurried = _settle(plan, server, customer, watcher)
        settled_s = time.monotonic() - began
        customer.give_up()
        history = _history(customer, watcher, backend, nemesis, references)
        return Campaign(
            plan=plan,
            history=history,
            backend_did=dict(backend.did),
            settled_s=settled_s,
            hurried=hurried,
            failed_starts=server.failed_starts,
        )


def _videos(folder: Path, sources: Sources, count: int) -> dict[str, str]:
    """URLs of sounds that have no sample in common, so that a mixture would show."""
    urls = {}
    for number, seconds in enumerate(LENGTHS_S[:count]):
        path = folder / f"{number}.flac"
        samples = np.random.default_rng(number).integers(-3000, 3000, round(seconds * SAMPLE_RATE_HZ), np.int16)
        soundfile.write(path, samples, SAMPLE_RATE_HZ)
        urls[path.stem] = sources.file(path)
    return urls


def _references(
    server: MortalServer, watcher: Watcher, customer: Customer, videos: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """The result of each video, undisturbed."""
    ids = {video: customer.order(video) for video in videos}
    deadline = time.monotonic() + REFERENCE_WITHIN_S
    while True:
        done = {row.job_id: row for row in watcher.rows() if row.state in ENDED}
        if done.keys() >= set(ids.values()):
            break
        assert time.monotonic() < deadline, f"the undisturbed jobs do not end: {server.log.read_text()[-3000:]}"
        time.sleep(POLL_S)
    assert all(done[job_id].state == "completed" for job_id in ids.values()), done
    customer.posted.clear()
    return {video: json.loads(done[job_id].result or b"") for video, job_id in ids.items()}


def _harm(plan: Plan, customer: Customer, videos: Sequence[str], nemesis: Nemesis, backend: Unreliable) -> None:
    """Jobs and, beside them, faults, until the time is up and the opening over, whatever the machine is busy with."""
    ends = time.monotonic() + plan.seconds
    orders = threading.Thread(target=_order, args=(plan, customer, videos, ends), daemon=True)
    orders.start()
    backend.mood = MOODS[plan.mood]
    server_ends = time.monotonic() + (plan.server_ends_every_s or math.inf)
    ends_of_the_server = itertools.cycle((nemesis.end_server, nemesis.end_ray))
    time.sleep(nemesis.pause_s())
    while time.monotonic() < ends or len(nemesis.faults) < len(plan.opening):
        if time.monotonic() >= server_ends:
            next(ends_of_the_server)()
            server_ends = time.monotonic() + (plan.server_ends_every_s or math.inf)
        else:
            nemesis.act()
        time.sleep(nemesis.pause_s())
    nemesis.rest()
    orders.join()


def _order(plan: Plan, customer: Customer, videos: Sequence[str], ends: float) -> None:
    """Jobs that come by chance, whatever happens to the server meanwhile."""
    chance = random.Random(plan.seed)
    for _ in range(plan.jobs):
        if time.monotonic() >= ends:
            return
        customer.order(chance.choice(videos))
        time.sleep(chance.expovariate(1 / plan.every_s))


def _settle(plan: Plan, server: MortalServer, customer: Customer, watcher: Watcher) -> int:
    """Wait until all jobs have ended and nobody is owed anything, or time is up: then the checker says what is lost."""
    began, hurried = time.monotonic(), 0
    moved, least = began, sys.maxsize
    while time.monotonic() - moved < plan.settle_s:
        rows = watcher.rows()
        waiting = [row for row in rows if row.state not in ENDED]
        owed = [row for row in rows if any(state == "pending" for _, state in row.callbacks)]
        if not waiting and not owed and not customer.unanswered:
            break
        if len(waiting) + len(owed) < least:
            moved, least = time.monotonic(), len(waiting) + len(owed)
        if owed and time.monotonic() - began > plan.patience_s:
            hurried += _hurry(server)
        time.sleep(max(POLL_S, min(plan.patience_s, 5.0)) if owed and hurried else POLL_S)
    return hurried


def _hurry(server: MortalServer) -> int:
    """Move the clock for what waits for its next try: the schedule's last steps are hours long."""
    database = Database(server.database_url)
    try:
        with database.write() as db:
            db.execute(delete(receivers))
            pending = (callbacks.c.state == "pending", callbacks.c.next_try_at > time.time())
            return db.execute(update(callbacks).where(*pending).values(next_try_at=time.time())).rowcount
    finally:
        database.close()


def _history(
    customer: Customer, watcher: Watcher, backend: Unreliable, nemesis: Nemesis, references: dict[str, dict[str, Any]]
) -> History:
    assert watcher.looking, "nobody looked at the jobs any more"
    mine = {each.job_id for each in customer.posted}
    return History(
        posted=customer.posted,
        seen=[each for each in watcher.seen if each.job_id in mine],
        rows=[each for each in watcher.rows() if each.job_id in mine],
        got=[each for each in backend.received if each.job_id in mine],
        faults=nemesis.faults,
        references=references,
    )
