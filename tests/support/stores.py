"""The stores of a test's database, and a try that failed."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from serve_app.callbacks.retry_schedule import RetrySchedule
from serve_app.orchestration.opening import Stores, open_stores
from serve_app.settings import Limits
from serve_app.storage.tables import server_state

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
    settings: Any = SimpleNamespace(locale=locale, limits=Limits(queued_jobs=queue_limit, running_jobs=running_limit))
    return open_stores(settings, database, clock=clock)


def set_draining(database: Database, *, draining: bool) -> None:
    """Begin or end the drain, as the manager that leads does."""
    with database.write(admission=True) as db:
        db.execute(update(server_state).values(draining=draining))


def fail(outbox: Outbox, callback: DueCallback | None, *, error: str) -> None:
    """Settle a failed try of a claimed callback as a sender does whose waits are not spread."""
    assert callback is not None
    wait_s = RetrySchedule(spread=0).wait_s(attempts=callback.attempts, age_s=callback.age_s)
    if wait_s is None:
        outbox.give_up(callback, error=error)
    else:
        outbox.schedule_retry(callback, after_s=wait_s, error=error)
