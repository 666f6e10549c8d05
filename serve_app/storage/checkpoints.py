"""What an attempt has worked out, kept for the next one: rows that live as long as their job's run.

`Checkpoints` knows rows and digests, `CheckpointWriter` one attempt's writes, which go on beside its work. A row that
is not what was written, or was made from something else, is as good as none: the stage runs again.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.pipeline.checkpoint_codec import Step, decode, encode
from serve_app.storage.job_store import fence
from serve_app.storage.tables import checkpoints, jobs

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.storage.database import Database

log = logs.get_logger("checkpoints")


class Checkpoints:
    """The rows. Blocking: call it from a thread."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def keep(self, attempt: Attempt, stage: str, body: bytes) -> bool:
        """Keep `body` in place of what was there; False, and nothing done, where the attempt no longer counts."""
        row = {"job_id": attempt.job_id, "run": attempt.run, "stage": stage}
        with self._db.write() as db:
            if db.execute(select(jobs.c.job_id).where(fence(attempt)).with_for_update()).first() is None:
                return False
            db.execute(delete(checkpoints).filter_by(**row))
            db.execute(insert(checkpoints).values(**row, digest=_digest(body), body=body))
            return True

    def stages(self, job_id: str, run: int) -> frozenset[str]:
        """Those of which something is kept."""
        with self._db.read() as db:
            return frozenset(db.execute(select(checkpoints.c.stage).filter_by(job_id=job_id, run=run)).scalars())

    def find(self, job_id: str, run: int, stage: str) -> bytes | None:
        """What was kept, None where there is nothing or it is damaged."""
        with self._db.read() as db:
            query = select(checkpoints.c.digest, checkpoints.c.body)
            row = db.execute(query.filter_by(job_id=job_id, run=run, stage=stage)).one_or_none()
        if row is None:
            return None
        if _digest(row.body) != row.digest:
            log.warning("a checkpoint is damaged", extra=logs.about(job_id, stage=stage))
            return None
        return bytes(row.body)


class CheckpointWriter:
    """Finds and keeps the answers of one attempt. A database that fails costs time at most, never the job."""

    def __init__(self, checkpoints: Checkpoints, attempt: Attempt) -> None:
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._one_by_one = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()

    async def steps(self) -> frozenset[str]:
        """Those of which earlier attempts have kept something."""
        try:
            return await asyncio.to_thread(self._checkpoints.stages, self._attempt.job_id, self._attempt.run)
        except SQLAlchemyError as error:
            self._warn("checkpoints cannot be read", error)
            return frozenset()

    async def find(self, step: Step, source: str) -> Any:
        """The answer that was kept of this step and made from `source`, None where there is none to rely on."""
        try:
            return await asyncio.to_thread(self._find, step, source)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stage can run again
            self._warn("a checkpoint cannot be used", error, step)
            return None

    def _find(self, step: Step, source: str) -> Any:
        body = self._checkpoints.find(self._attempt.job_id, self._attempt.run, step)
        if body is None:
            return None
        made_from, _, answer = body.partition(b"\n")
        if made_from != source.encode():
            log.info("a checkpoint is of something else", extra=logs.about(self._attempt.job_id, stage=step))
            return None
        return decode(step, answer)

    def keep(self, step: Step, source: str, answer: Any) -> None:
        """Keep an answer, and by what it was made from; returns at once. `source` is one line."""
        write = asyncio.create_task(self._keep(step, source, answer))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _keep(self, step: Step, source: str, answer: Any) -> None:
        """In turn, so that the later answer of a step stays."""
        try:
            async with self._one_by_one:
                await asyncio.to_thread(self._write, step, source, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is there and the work goes on
            self._warn("a checkpoint is not kept", error, step)

    def _write(self, step: Step, source: str, answer: Any) -> None:
        if not self._checkpoints.keep(self._attempt, step, source.encode() + b"\n" + encode(step, answer)):
            log.info("this attempt no longer counts", extra=logs.about(self._attempt.job_id, stage=step))

    async def settled(self) -> None:
        """Wait until all that was to be kept is written."""
        await asyncio.gather(*self._writes)

    def _warn(self, message: str, error: Exception, step: Step | None = None) -> None:
        about = logs.about(self._attempt.job_id, stage=step, error=type(error).__name__)
        log.warning(message, extra=about)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
