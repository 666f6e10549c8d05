"""Saves and finds the answers of one attempt's steps. A database that fails costs time at most, never the job.

A checkpoint that is damaged, or was made from something else, is ignored: the step runs again. Knows the codec and
the rows; knows nothing of the steps themselves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.pipeline.checkpoint_codec import Step, decode, encode

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.storage.checkpoints import Checkpoints

log = logs.get_logger("checkpoints")


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
        if not self._checkpoints.save(self._attempt, step, source.encode() + b"\n" + encode(step, answer)):
            log.info("this attempt no longer counts", extra=logs.about(self._attempt.job_id, stage=step))

    async def settled(self) -> None:
        """Wait until all that was to be kept is written."""
        await asyncio.gather(*self._writes)

    def _warn(self, message: str, error: Exception, step: Step | None = None) -> None:
        about = logs.about(self._attempt.job_id, stage=step, error=type(error).__name__)
        log.warning(message, extra=about)
