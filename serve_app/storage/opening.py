"""Opens the database that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.storage.database import Database

if TYPE_CHECKING:
    from serve_app.settings import Settings


def open_database(settings: Settings) -> Database:
    """Return the database, with its tables in their newest form."""
    settings.prepare()
    database = Database(settings.database_url.get_secret_value())
    database.create()
    return database
