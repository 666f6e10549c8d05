"""Brings a database to the newest form of the tables, by Alembic: one file a step in `versions/`.

A step is never changed once it is released; `storage/tables.py` is what they add up to (a test compares the two).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEWEST = "0009"
"""The last step. A constant, so that a process that finds it in the database need not load Alembic."""


class DatabaseTooNewError(RuntimeError):
    """The database is of a later release, whose rows this one does not understand."""


def is_newest(connection: Connection) -> bool:
    """Return whether the last step was taken. Raises `DatabaseTooNewError`."""
    return _version(connection) == NEWEST


def migrate(connection: Connection, *, to: str = NEWEST) -> None:
    """Take the missing steps in the connection's transaction: all, or none. Raises `DatabaseTooNewError`."""
    if is_newest(connection):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _version(connection: Connection) -> str:
    """Return the last step taken; empty where none was recorded, as for tables made before steps were counted."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    version = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")
    if version > NEWEST:
        raise DatabaseTooNewError(
            f"the database is of a later release (its tables are at step {version}, this release knows {NEWEST}):"
            " start that release, or go back to a copy of the database from before it"
        )
    return version
