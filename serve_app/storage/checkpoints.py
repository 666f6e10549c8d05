"""Checkpoints: the answers of finished steps, stored so that the next attempt of a run need not work them out again.

A row lives as long as its job's run. Knows rows and digests; knows nothing of what is in a body.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from deployments import logs
from serve_app.storage.job_rows import fence
from serve_app.storage.tables import checkpoints, jobs

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.storage.database import Database

log = logs.get_logger("checkpoints")


class Checkpoints:
    """The rows. Blocking: call it from a thread."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(self, attempt: Attempt, stage: str, body: bytes) -> bool:
        """Store `body` in place of an earlier one. False: the attempt no longer counts, and nothing is stored."""
        row = {"job_id": attempt.job_id, "run": attempt.run, "stage": stage}
        with self._db.write() as db:
            if db.execute(select(jobs.c.job_id).where(fence(attempt)).with_for_update()).first() is None:
                return False
            db.execute(delete(checkpoints).filter_by(**row))
            db.execute(insert(checkpoints).values(**row, digest=_digest(body), body=body))
            return True

    def stages(self, job_id: str, run: int) -> frozenset[str]:
        """Return the stages that have a checkpoint."""
        with self._db.read() as db:
            return frozenset(db.execute(select(checkpoints.c.stage).filter_by(job_id=job_id, run=run)).scalars())

    def load(self, job_id: str, run: int, stage: str) -> bytes | None:
        """Return the body of a checkpoint, None where there is none or it is damaged."""
        with self._db.read() as db:
            query = select(checkpoints.c.digest, checkpoints.c.body)
            row = db.execute(query.filter_by(job_id=job_id, run=run, stage=stage)).one_or_none()
        if row is None:
            return None
        if _digest(row.body) != row.digest:
            log.warning("a checkpoint is damaged", extra=logs.about(job_id, stage=stage))
            return None
        return bytes(row.body)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
