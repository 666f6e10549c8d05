"""Makes the tables of a test's empty database by the statements of the first one: a quarter of what Alembic takes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, inspect

from serve_app.storage import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

READS = ("SELECT", "PRAGMA", "SHOW")
_made: dict[str, list[tuple[str, Any]]] = {}
"""Dialect to the statements, with their values, that Alembic had for an empty database."""


def migrate(connection: Connection) -> None:
    """Do what `migrations.migrate` does; a database that is not empty it gets itself."""
    name = connection.dialect.name
    if inspect(connection).get_table_names():
        migrations.migrate(connection)
    elif name in _made:
        for statement, values in _made[name]:
            connection.exec_driver_sql(statement, values)
    else:
        with _noted(connection) as statements:
            migrations.migrate(connection)
        _made[name] = statements


@contextmanager
def _noted(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if not statement.lstrip().upper().startswith(READS):
            statements.append((statement, values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(connection, "before_cursor_execute", note)
