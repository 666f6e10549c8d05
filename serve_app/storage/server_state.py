"""Facts about the server as a whole, in the one row of `server_state`: drain flag, callback number, newest start.

While the server drains (it is about to stop), no job is taken or admitted and no attempt is counted; the next manager
that leads removes the flag. A receiver drops a callback whose number is not higher than the last of that job_id, so a
job that was deleted and is posted again counts from the highest number of any deleted job. Blocking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from serve_app.storage.tables import jobs, leases, server_state

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from serve_app.storage.database import Database
    from serve_app.storage.leases import Lease

OLD_SEQUENCE = "sequence"
"""The lease whose beats were the highest number until step 0006. Processes of that release still read and write it
while a `serve deploy` exchanges them, so both places are. To be deleted with the release after."""


def is_draining(db: Connection) -> bool:
    """Return whether nothing new may begin."""
    return bool(db.execute(select(server_state.c.draining)).scalar_one())


def set_draining(database: Database, *, draining: bool, lease: Lease) -> bool:
    """Begin or end the drain, unless `lease`, the manager's, has gone to another; return whether it has not."""
    with database.write(admission=True) as db:
        if not lease.is_held(db):
            return False
        db.execute(update(server_state).values(draining=draining))
        return True


def note_start(database: Database) -> float:
    """Return the time of this start, epoch seconds; later than all that were noted before, whatever the clock says."""
    with database.write(admission=True) as db:
        at = max(time.time(), db.execute(select(server_state.c.started_at)).scalar_one() + 1.0)
        db.execute(update(server_state).values(started_at=at))
        return float(at)


def deleted_sequence(db: Connection) -> int:
    """Return the highest callback number of any deleted job, 0 where none was deleted."""
    old = select(leases.c.beats).where(leases.c.name == OLD_SEQUENCE)
    return max(int(number) for number in db.execute(select(server_state.c.deleted_sequence).union_all(old)).scalars())


def note_deletion(db: Connection, of_jobs: ColumnElement[bool]) -> None:
    """Store the highest callback number of the jobs that the same transaction is about to delete."""
    number = db.execute(select(func.max(jobs.c.sequence)).where(of_jobs)).scalar() or 0
    if number > deleted_sequence(db):
        db.execute(update(server_state).values(deleted_sequence=number))
        if not db.execute(update(leases).where(leases.c.name == OLD_SEQUENCE).values(beats=number)).rowcount:
            db.execute(insert(leases).values(name=OLD_SEQUENCE, holder="", beats=number))
