"""What the store's questions cost, by how many jobs are stored and how many wait, on SQLite and PostgreSQL.

    python -m tests.benchmarks scale [ENDED …]

Medians in milliseconds of each question as the ingress and the manager ask it, over databases of so many ended jobs
(1000 and 100000) with results, callbacks, events and a checkpoint, ten running and 1, 10 and 100 waiting ones. Both
databases write each commit to the disk. PostgreSQL where its programs are installed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert

from serve_app.jobs.job import CallbackState, JobOptions, Outcome
from serve_app.jobs.states import JobState
from serve_app.storage.database import Database
from serve_app.storage.job_store import JobList
from serve_app.storage.tables import callbacks, checkpoints, events, jobs, results
from tests.benchmarks.report import row, say, table
from tests.support import postgres
from tests.support.jobs import new_job
from tests.support.stores import stores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve_app.orchestration.opening import Stores

ENDED: Final = (1_000, 100_000)
WAITING: Final = (1, 10, 100)
TIMES: Final = 30
AT_ONCE: Final = 2_000
"""Jobs of one insertion."""
BODY: Final = b'{"text":"","segments":[]}' + b" " * 1000
DURABLE: Final = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")
RUNNING: Final = 10
URL: Final = "http://127.0.0.1:9/result"
DAY_S: Final = 86_400.0
OUTCOME: Final = Outcome(error_code="CANCELLED", error_message="no")


def main(arguments: Sequence[str] = ()) -> None:
    sizes = tuple(int(each) for each in arguments) or ENDED
    measured: dict[tuple[str, int, int], dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres.running_postgres(*DURABLE)) if postgres.missing() is None else None
        for ended in sizes:
            urls = {"SQLite": f"sqlite:///{folder / f'{ended}.db'}"}
            if server is not None:
                urls["PostgreSQL"] = stack.enter_context(server.database())
            for name, url in urls.items():
                database = Database(url)
                database.create()
                fill(database, ended)
                if name != "SQLite":  # there the server's own autovacuum does it
                    with database.write() as db:
                        db.exec_driver_sql("ANALYZE")
                for waiting in WAITING:
                    measured[name, ended, waiting] = asked(database, ended, waiting)
                database.close()
    columns = list(measured)
    say(table(["ms", *(f"{name}, {ended} ended, {waiting} waiting" for name, ended, waiting in columns)], []))
    for question in measured[columns[0]]:
        say(row(question, *(f"{measured[column][question]:.1f}" for column in columns)))


def fill(database: Database, ended: int) -> None:
    """Store so many jobs that have ended, the last one just now, one each minute before."""
    now = time.time()
    zero = dict.fromkeys(("progress", "sequence", "spent_s"), 0) | {"run": 1, "attempt": 1}
    for first in range(0, ended, AT_ONCE):
        numbers = range(first, min(ended, first + AT_ONCE))
        rows: list[dict[str, Any]] = []
        for number in numbers:
            at = now - 60.0 * number
            times = dict.fromkeys(("video_expires_at", "queued_at", "told_at", "finished_at", "created_at"), at)
            state = JobState.COMPLETED if number % 10 else JobState.FAILED
            fixed = {"fingerprint": "f", "video_url": "https://v.example/a", "options": JobOptions().model_dump()}
            fixed |= {"state": state, "stage": "done", "prefetch": "none", "cancel_requested": False}
            rows.append(zero | times | fixed | {"job_id": f"ended-{number}", "callback_url": URL})
        told = {"url": URL, "origin": "http://127.0.0.1:9", "body": BODY, "state": CallbackState.DELIVERED}
        told |= {"sequence": 1, "attempts": 1, "due_since": now, "next_try_at": now}
        ids = [each["job_id"] for each in rows]
        with database.write() as db:
            db.execute(insert(jobs), rows)
            db.execute(insert(callbacks), [told | {"id": f"msg-{each}", "job_id": each} for each in ids])
            kept = {"body": BODY, "duration_s": 60.0, "processing_s": 30.0, "warnings": 0}
            db.execute(insert(results), [kept | {"job_id": each} for each in ids])
            saved = {"run": 1, "stage": "tracks", "digest": "", "body": BODY}
            db.execute(insert(checkpoints), [saved | {"job_id": each} for each in ids])
            event = {"at": now, "run": 1, "attempt": 1, "detail": None}
            kinds = ("queued", "started", "completed")
            db.execute(insert(events), [event | {"job_id": each, "kind": kind} for each in ids for kind in kinds])


def asked(database: Database, ended: int, waiting: int) -> dict[str, float]:
    """The median milliseconds of each question with so many jobs in the queue, which is empty again afterwards."""
    store = stores(database, queue_limit=10_000, running_limit=RUNNING)
    ids = [*(f"runs-{number}" for number in range(RUNNING)), *(f"waits-{number}" for number in range(waiting))]
    for job_id in ids:
        store.jobs.submit_job(new_job(job_id, URL))
        if job_id.startswith("runs-"):
            store.queue.admit_jobs()
    found = {name: median_ms(ask) for name, ask in questions(database, store, ended, ids[-1]).items()}
    for job_id in ids:
        store.jobs.cancel_job(job_id, OUTCOME)
    drain(store)
    return found


def drain(store: Stores) -> None:
    """Have all owed callbacks delivered."""
    while due := store.outbox.due(100):
        for callback_id, _, _ in due:
            if (claimed := store.outbox.claim(callback_id)) is not None:
                store.outbox.mark_delivered(claimed)


def questions(database: Database, store: Stores, ended: int, waits: str) -> dict[str, Callable[[], object]]:
    """What is measured, by its name in the table. Each leaves the database as it was, but for what has ended."""
    numbers, lists = count(), JobList(database)
    middle = f"ended-{ended // 2}"

    def admit() -> None:
        job_id = f"new-{ended}-{waits}-{next(numbers)}"
        store.jobs.submit_job(new_job(job_id, URL))
        store.jobs.cancel_job(job_id, OUTCOME)

    def deliver() -> None:
        store.outbox.redeliver(middle)
        drain(store)

    def position() -> object:
        job = store.jobs.fetch_job(waits)
        assert job is not None
        return store.jobs.estimate_s(job), store.jobs.queue_position(job)

    return {
        "a POST, and its cancellation": admit,
        "a job's status": lambda: (store.jobs.fetch_job(middle), store.outbox.status(middle)),
        "place in the queue, estimate": position,
        "counts by state": store.jobs.count_jobs,
        "list: newest 50": lambda: lists.page(limit=50),
        "list: 50 behind the middle": lambda: lists.page(limit=50, after=middle),
        "list: 50 failed": lambda: lists.page(limit=50, state=JobState.FAILED),
        "list: 50 waiting": lambda: lists.page(limit=50, state=JobState.QUEUED),
        "list: 50 whose end is owed": lambda: lists.page(limit=50, callback=CallbackState.PENDING),
        "changes since the last look": lambda: lists.changes(None),
        "manager: slots, none free": store.queue.admit_jobs,
        "manager: running jobs": store.queue.fetch_running_jobs,
        "manager: heartbeats": lambda: store.queue.take_due_heartbeats(since_s=DAY_S),
        "manager: fetching ahead": lambda: store.queue.select_jobs_to_prefetch(2),
        "manager: ends that are due": lambda: store.outbox.due(20),
        "manager: jobs to delete, none": lambda: store.queue.delete_old_jobs(time.time() - 365 * DAY_S),
        "a redelivery, told": deliver,
    }


def median_ms(ask: Callable[[], object]) -> float:
    took_s = []
    for _ in range(TIMES):
        began_s = time.perf_counter()
        ask()
        took_s.append(time.perf_counter() - began_s)
    return 1000 * statistics.median(took_s)
