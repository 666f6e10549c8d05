"""The stores of a test's database, and a try that failed."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from serve_app.callbacks.payloads import end_body
from serve_app.callbacks.retry_schedule import RetrySchedule
from serve_app.storage.stores import Stores, stores_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.errors import Locale
    from serve_app.jobs.job import DueCallback
    from serve_app.storage.database import Database
    from serve_app.storage.outbox import Outbox


def stores(
    database: Database,
    *,
    queue_limit: int,
    running_limit: int,
    locale: Locale = "ko",
    clock: Callable[[], float] = time.time,
) -> Stores:
    """Return them as the server opens them."""
    body = partial(end_body, locale=locale, max_bytes=50_000_000)
    return stores_of(database, queue_limit=queue_limit, running_limit=running_limit, end_body=body, clock=clock)


def fail(outbox: Outbox, callback: DueCallback | None, *, error: str) -> None:
    """Settle a failed try of a claimed callback as a sender does whose waits are not spread."""
    assert callback is not None
    wait_s = RetrySchedule(spread=0).wait_s(attempts=callback.attempts, age_s=callback.age_s)
    if wait_s is None:
        outbox.give_up(callback, error=error)
    else:
        outbox.schedule_retry(callback, after_s=wait_s, error=error)
