"""Checkpoints: the answers of finished steps, stored so that later attempts and runs need not work them out again.

Of each step the newest answer is kept, as long as its job. Knows rows and digests, and of a body only that its first
line is its source: 64 characters that say what the answer was computed from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import LargeBinary, delete, func, insert, select

from deployments import logs
from serve_app.storage.job_rows import fence
from serve_app.storage.tables import checkpoints, jobs

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.storage.database import Database

SOURCE_CHARACTERS = 64

log = logs.get_logger("checkpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint without its answer: the run that saved it, and what the answer was computed from."""

    run: int
    source: str


class Checkpoints:
    """The rows. Blocking: call it from a thread."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(self, attempt: Attempt, stage: str, body: bytes) -> bool:
        """Store `body` in place of an earlier one. False: the attempt no longer counts, and nothing is stored."""
        row = {"job_id": attempt.job_id, "stage": stage}
        with self._db.write() as db:
            if db.execute(select(jobs.c.job_id).where(fence(attempt)).with_for_update()).first() is None:
                return False
            db.execute(delete(checkpoints).filter_by(**row))
            db.execute(insert(checkpoints).values(**row, run=attempt.run, digest=_digest(body), body=body))
            return True

    def sources(self, job_id: str) -> dict[str, Saved]:
        """Return the stages that have a checkpoint, with what it was computed from."""
        source = func.substr(checkpoints.c.body, 1, SOURCE_CHARACTERS, type_=LargeBinary).label("source")
        query = select(checkpoints.c.stage, checkpoints.c.run, source).where(checkpoints.c.job_id == job_id)
        with self._db.read() as db:
            return {
                row.stage: Saved(run=row.run, source=bytes(row.source or b"").decode("ascii", "replace"))
                for row in db.execute(query.order_by(checkpoints.c.run))
            }

    def load(self, job_id: str, stage: str) -> bytes | None:
        """Return the body of the newest checkpoint, None where there is none or it is damaged."""
        query = select(checkpoints.c.digest, checkpoints.c.body).filter_by(job_id=job_id, stage=stage)
        with self._db.read() as db:
            row = db.execute(query.order_by(checkpoints.c.run.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        if _digest(row.body) != row.digest:
            log.warning("a checkpoint is damaged", extra=logs.about(job_id, stage=stage))
            return None
        return bytes(row.body)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
