"""Opens the stores as the settings say: storage does not know the callbacks' bodies, and they do not know storage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from serve_app.callbacks.payloads import end_body
from serve_app.storage.stores import Stores, stores_of

if TYPE_CHECKING:
    from serve_app.settings import Settings
    from serve_app.storage.database import Database


def open_stores(settings: Settings, database: Database) -> Stores:
    """Return the stores of `database`."""
    limits = settings.limits
    return stores_of(
        database,
        queue_limit=limits.queued_jobs,
        running_limit=limits.running_jobs,
        end_body=partial(end_body, locale=settings.locale, max_bytes=limits.callback_bytes),
    )
