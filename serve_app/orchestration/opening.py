"""Opens the stores of one database: storage does not know the callbacks' bodies, and they do not know storage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from serve_app.callbacks.payloads import end_body
from serve_app.storage.attempt_store import AttemptStore
from serve_app.storage.job_queue import JobQueue
from serve_app.storage.job_store import JobStore
from serve_app.storage.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.settings import Settings
    from serve_app.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """All that is durable about jobs, each store with the methods of those who use it."""

    jobs: JobStore
    """For the HTTP edge."""
    queue: JobQueue
    """For the manager."""
    attempts: AttemptStore
    """For the attempt that works on a job."""
    outbox: Outbox
    """For senders of callbacks."""


def open_stores(settings: Settings, database: Database, *, clock: Callable[[], float] = time.time) -> Stores:
    """Return the stores of `database`."""
    limits = settings.limits
    body = partial(end_body, locale=settings.locale, max_bytes=limits.callback_bytes)
    return Stores(
        jobs=JobStore(database, limits, end_body=body, clock=clock),
        queue=JobQueue(database, running_limit=limits.running_jobs, clock=clock),
        attempts=AttemptStore(database, end_body=body, clock=clock),
        outbox=Outbox(database, clock=clock),
    )
