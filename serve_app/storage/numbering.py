"""From which number the callbacks of a new job count.

A receiver drops what has a lower number than it has seen of a job_id. So a job that was deleted or pruned, and is
posted again under its id, must not begin at 1. Nothing is kept of such jobs but the highest number that any of them
came to: a row among the leases. Knows nothing else of jobs. Blocking: call it from a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.storage.tables import jobs, leases

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

NAME = "sequence"


def start(db: Connection) -> int:
    """What a job's numbers rise from; 0 where no job was ever deleted."""
    return db.execute(select(leases.c.beats).where(leases.c.name == NAME)).scalar() or 0


def remember(db: Connection, going: ColumnElement[bool]) -> None:
    """Note the numbers of the jobs that are about to be deleted, in the same transaction."""
    highest = db.execute(select(func.max(jobs.c.sequence)).where(going)).scalar()
    if not highest:
        return
    upsert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
    row = upsert(leases).values(name=NAME, holder="", beats=highest)
    higher = case((leases.c.beats < highest, highest), else_=leases.c.beats)
    db.execute(row.on_conflict_do_update(index_elements=[leases.c.name], set_={"beats": higher}))
