"""What it costs that nothing is lost: jobs a second that the store takes in.

    python -m tests.benchmarks durability

`JobStore.submit_job` alone, from one thread and from several, and POSTs to the real HTTP edge in a process without Ray:
as fast as they are answered by so many connections, and 200 a second whatever the answers. SQLite with
`synchronous=FULL`: each is on disk when it is answered. The limits of the queue are raised.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np

from serve_app.cli.child_process import free_port
from tests.benchmarks.footprint import machine_busy_s
from tests.benchmarks.load_client import Asking, Plan
from tests.benchmarks.report import row, say, table
from tests.chaos.light import nursery, opened, serve
from tests.support.jobs import new_job
from tests.support.process import wait_healthy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve_app.orchestration.opening import Stores


JOBS = 2000
WRITERS = (1, 4)
CONNECTIONS = (1, 4)
PACE_HZ = 200
VIDEO = "http://127.0.0.1:1/a.mp4?s"
BACKEND = "http://127.0.0.1:1"
BUSY = "the machine's processors busy"


def main(_arguments: Sequence[str] = ()) -> None:
    head = ["intake, SQLite", "jobs", "**jobs/s** (aim ≥ 200)", "median, ms", "**p99, ms** (aim < 50)", BUSY]
    say(table(head, []))
    for writers in WRITERS:
        say(intake_row(f"the store, {writers} thread(s)", lambda count=writers: directly(count)))
    for connections in CONNECTIONS:
        say(intake_row(f"POSTs, {connections} connection(s)", lambda count=connections: through_the_edge(count)))
    say(intake_row(f"POSTs, {PACE_HZ} a second", lambda: through_the_edge(1, PACE_HZ)))


def intake_row(name: str, measure: Callable[[], tuple[float, list[float]]]) -> str:
    """A row: how many a second, how long each."""
    busy_s = machine_busy_s()
    wall_s, took_s = measure()
    busy = (machine_busy_s() - busy_s) / wall_s / (os.cpu_count() or 1)
    median_ms, p99_ms = (1000 * np.percentile(took_s, share) for share in (50, 99))
    return row(
        name, len(took_s), f"**{len(took_s) / wall_s:.0f}**", f"{median_ms:.1f}", f"**{p99_ms:.1f}**", f"{busy:.0%}"
    )


def directly(writers: int) -> tuple[float, list[float]]:
    """Wall seconds, and the seconds of each submission, by so many threads."""
    with tempfile.TemporaryDirectory() as folder, opened({"state_dir": folder}) as (store, _):
        submit(store)
        with ThreadPoolExecutor(writers) as threads:
            began = time.perf_counter()
            took_s = list(threads.map(lambda _: submit(store), range(JOBS)))
            return time.perf_counter() - began, took_s


def submit(store: Stores) -> float:
    """One job; the seconds that it took."""
    job_id, now = str(uuid.uuid4()), time.time()
    url = f"{BACKEND}/api/upload-video/result"
    new = new_job(job_id, url, video_url=VIDEO, video_expires_at=now + 3600, fingerprint=job_id.replace("-", ""))
    began = time.perf_counter()
    store.jobs.submit_job(new)
    return time.perf_counter() - began


def through_the_edge(connections: int, pace_hz: float = 0.0) -> tuple[float, list[float]]:
    """The same for POSTs: each connection's next one right after the answer to the one before, or at a steady rate."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = nursery().Process(target=serve, args=({"state_dir": folder}, port), daemon=True)
        process.start()
        try:
            url = f"http://127.0.0.1:{port}"
            wait_healthy(url, process.is_alive, Path(folder) / "log.jsonl")
            asking = Asking(
                Plan(server_url=url, rate_per_s=pace_hz, count=JOBS, connections=connections, video_url=VIDEO)
            )
            began = time.perf_counter()
            answers = asking.answers()
            assert set(answers.statuses) == {httpx.codes.OK}
            return time.perf_counter() - began, answers.seconds
        finally:
            process.kill()
            process.join()
