"""Opens what is durable, as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.storage.database import Database
from serve_app.storage.job_store import JobStore
from serve_app.storage.outbox import Outbox

if TYPE_CHECKING:
    from serve_app.settings import Settings


def open_database(settings: Settings) -> Database:
    """The database, whose tables exist."""
    settings.prepare()
    database = Database(settings.database_url.get_secret_value())
    database.create()
    return database


def open_store(settings: Settings, database: Database | None = None) -> tuple[JobStore, Outbox]:
    """The job table and the outbox, over one database."""
    database = database or open_database(settings)
    limits = settings.limits
    store = JobStore(
        database,
        queue_limit=limits.queued_jobs,
        running_limit=limits.running_jobs,
        locale=settings.locale,
        max_body_bytes=limits.callback_bytes,
    )
    return store, Outbox(database)
