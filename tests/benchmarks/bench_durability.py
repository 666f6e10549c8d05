"""What it costs that nothing is lost: jobs a second that the store takes in, and the database's share of a job.

    python -m tests.benchmarks durability

Intake: `JobStore.submit` alone, from one thread and from several, and POSTs to the real HTTP edge in a process without
Ray: as fast as they are answered by so many connections, and 200 a second whatever the answers, each timed from when it
was due. SQLite with `synchronous=FULL`: each is on disk when it is answered. The limits of the queue are raised.

Share: the 30 s sample through the whole server with the embedded engines; every turn at the database writes down how
long it took, waiting for its turn and the commit included (`watched_database`). The driver's are the job's own. Those
that tell progress happen beside the work, and nothing waits for them; the rest is in the job's way.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import yaml

from deployments.logs import JOB_FIELD
from serve_app.cli.child_process import free_port
from serve_app.jobs.job import JobOptions, NewJob
from tests.benchmarks.bench_server import sample
from tests.benchmarks.footprint import machine_busy_s
from tests.benchmarks.report import row, say, table
from tests.chaos.light import nursery, opened, serve
from tests.support.backend import Backend
from tests.support.process import ROOT, running_server
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from serve_app.storage.job_store import JobStore

JOBS = 2000
WRITERS = (1, 4)
CONNECTIONS = (1, 4)
PACE_HZ, PACED_CONNECTIONS = 200, 16
RUNS = 2
"""Of the sample: the first one warms up."""
START_S, JOB_S = 60, 300
POST = "/api/upload-video/process-video"
VIDEO = "http://127.0.0.1:1/a.mp4?s"
BACKEND = "http://127.0.0.1:1"
ASKED, ENDED = "database asked", "job ended"
BESIDE = ("tell", "may_tell", "_gate", "note", "_settle")
"""Methods for which no work waits: progress, what is known of receivers, what came of a try. (One look at the
receiver's state, before the end is told, is in the way all the same: a millisecond.)"""
BUSY = "the machine's processors busy"


def main(_arguments: Sequence[str] = ()) -> None:
    """Print two tables."""
    head = ["intake, SQLite", "jobs", "**jobs/s** (aim ≥ 200)", "median, ms", "**p99, ms** (aim < 50)", BUSY]
    say(table(head, []))
    for writers in WRITERS:
        say(intake_row(f"the store, {writers} thread(s)", lambda count=writers: directly(count)))
    for connections in CONNECTIONS:
        say(intake_row(f"POSTs, {connections} connection(s)", lambda count=connections: through_the_edge(count)))
    paced = f"POSTs, {PACE_HZ} a second, {PACED_CONNECTIONS} connections"
    say(intake_row(paced, lambda: through_the_edge(PACED_CONNECTIONS, PACE_HZ)))
    say()
    head = ["30 s sample", "wall, s", "turns: reads, writes", "their time, s", "**share** (aim < 1 %)"]
    head += ["in the job's way", "by what is asked, ms", "all other processes, s", BUSY]
    say(table(head, []))
    for cells in of_a_job():
        say(row(*cells))


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


def submit(store: JobStore) -> float:
    """One job; the seconds that it took."""
    job_id, now = str(uuid.uuid4()), time.time()
    new = NewJob(
        job_id=job_id,
        video_url=VIDEO,
        video_expires_at=now + 3600,
        callback_url=f"{BACKEND}/api/upload-video/result",
        options=JobOptions(),
        fingerprint=job_id.replace("-", ""),
    )
    began = time.perf_counter()
    store.submit(new)
    return time.perf_counter() - began


def through_the_edge(connections: int, pace_hz: float = 0.0) -> tuple[float, list[float]]:
    """The same for POSTs. A connection sends its next one when the one before is answered, and not before it is due."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = nursery().Process(target=serve, args=({"state_dir": folder}, port), daemon=True)
        process.start()
        try:
            return asyncio.run(_post_all(f"http://127.0.0.1:{port}", connections, pace_hz))
        finally:
            process.kill()
            process.join()


async def _post_all(url: str, connections: int, pace_hz: float) -> tuple[float, list[float]]:
    took_s: list[float] = []
    todo = iter(range(JOBS))
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
        await _until_it_answers(http)

        async def send(due: float) -> None:
            await asyncio.sleep(due - time.perf_counter())
            content = {"job_id": str(uuid.uuid4()), "video_url": VIDEO, "fastapi_base_url": BACKEND}
            answer = await http.post(POST, json=content)
            took_s.append(time.perf_counter() - due)
            assert answer.status_code == httpx.codes.OK, answer.text

        async def send_on() -> None:
            for number in todo:
                await send(began + number / pace_hz if pace_hz else time.perf_counter())

        began = time.perf_counter()
        await asyncio.gather(*(send_on() for _ in range(connections)))
        return time.perf_counter() - began, took_s


async def _until_it_answers(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(START_S):
        while True:
            with suppress(httpx.HTTPError):
                if (await http.get("/health")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.05)


def of_a_job() -> Iterable[Sequence[object]]:
    """Per run of the sample: its wall time, and what the database took of it."""
    with tempfile.TemporaryDirectory() as name:
        config = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text(encoding="utf-8"))
        config["applications"][0]["import_path"] = "tests.benchmarks.watched_database:build"
        path = Path(name) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        with (
            running_server("--config", str(path), environment={"PYTHONPATH": str(ROOT)}) as server,
            Backend() as backend,
            Sources() as sources,
        ):
            log = server.state_dir / "logs" / "ml-server.jsonl"
            url = sources.file(sample())
            for number in range(RUNS):
                before_bytes, busy_s, began = log.stat().st_size, machine_busy_s(), time.monotonic()
                job_id = server.start(url, fastapi_base_url=backend.url)
                wall_s = backend.wait_end(job_id, within_s=JOB_S).at - began
                time.sleep(1)  # the driver's last lines come after the callback
                with log.open(encoding="utf-8") as file:
                    file.seek(before_bytes)
                    asked = turns([json.loads(line) for line in file], job_id)
                busy = (machine_busy_s() - busy_s) / (time.monotonic() - began) / (os.cpu_count() or 1)
                yield "warm" if number else "first", *asked.cells(wall_s), f"{busy:.0%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn at the database."""

    kind: str
    asker: str
    """The method that asked."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """At the database, while a job ran."""

    own: Sequence[Turn]
    """Of the job's driver."""
    others_s: float
    """Of all other processes, together."""

    def cells(self, wall_s: float) -> list[str]:
        """For the table: of a job that took `wall_s`."""
        kinds = [each.kind for each in self.own]
        by_asker: Counter[str] = Counter()
        for each in self.own:
            by_asker[each.asker] += each.seconds
        own_s = by_asker.total()
        in_the_way_s = own_s - sum(by_asker[name] for name in BESIDE)
        return [
            f"{wall_s:.2f}",
            f"{kinds.count('read')}, {kinds.count('write')}",
            f"{own_s:.3f}",
            f"**{own_s / wall_s:.2%}**",
            f"{in_the_way_s / wall_s:.2%}",
            ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in by_asker.most_common()),
            f"{self.others_s:.3f}",
        ]


def turns(lines: Iterable[dict[str, Any]], job_id: str) -> Turns:
    """By the process that says that the job ended: its driver."""
    by_process: defaultdict[int, list[Turn]] = defaultdict(list)
    driver = 0
    for line in lines:
        if line["message"] == ASKED:
            turn = Turn(kind=line["kind"], asker=line["asker"], seconds=line["seconds"])
            by_process[line["pid"]].append(turn)
        elif line["message"] == ENDED and line[JOB_FIELD] == job_id:
            driver = line["pid"]
    own = by_process.pop(driver, [])
    return Turns(own=own, others_s=sum(turn.seconds for asked in by_process.values() for turn in asked))
