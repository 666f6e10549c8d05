"""Whether the server is about to stop: from then on no job is taken or admitted, and no attempt counted.

A row among the leases, so that every process sees it with its next transaction; the next manager that works takes it
away. Knows nothing of jobs. Blocking: call it from a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from serve_app.storage.tables import leases

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from serve_app.storage.database import Database

NAME = "drain"


def is_on(db: Connection) -> bool:
    """Whether nothing may begin."""
    return db.execute(select(leases.c.name).where(leases.c.name == NAME)).first() is not None


def begin(database: Database) -> None:
    """The server stops."""
    with database.write(admission=True) as db:
        if not is_on(db):
            db.execute(insert(leases).values(name=NAME, holder="", beats=0))


def end(database: Database) -> None:
    """A server works again."""
    with database.read() as db:
        if not is_on(db):
            return
    with database.write(admission=True) as db:
        db.execute(delete(leases).where(leases.c.name == NAME))
