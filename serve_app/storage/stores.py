"""The stores of one database, each with the methods of those who use it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.storage.attempt_store import AttemptStore
from serve_app.storage.job_queue import JobQueue
from serve_app.storage.job_store import JobStore
from serve_app.storage.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.storage.database import Database
    from serve_app.storage.job_rows import EndBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """All that is durable about jobs."""

    jobs: JobStore
    """For the HTTP edge."""
    queue: JobQueue
    """For the manager."""
    attempts: AttemptStore
    """For the attempt that works on a job."""
    outbox: Outbox
    """For senders of callbacks."""


def stores_of(
    database: Database,
    *,
    queue_limit: int,
    running_limit: int,
    end_body: EndBody,
    clock: Callable[[], float] = time.time,
) -> Stores:
    """Return the stores of a database. `end_body` makes the body of the callback that reports the end of a run."""
    return Stores(
        jobs=JobStore(database, queue_limit=queue_limit, running_limit=running_limit, end_body=end_body, clock=clock),
        queue=JobQueue(database, running_limit=running_limit, clock=clock),
        attempts=AttemptStore(database, end_body=end_body, clock=clock),
        outbox=Outbox(database, clock=clock),
    )
