"""Saves and loads the answers of one attempt's steps. A database that fails costs time at most, never the job.

A checkpoint that is damaged, of another form, or computed from something else is ignored: its step runs again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.pipeline.checkpoint_codec import decode, encode

if TYPE_CHECKING:
    from serve_app.jobs.job import Attempt
    from serve_app.jobs.stages import Step
    from serve_app.storage.checkpoints import Checkpoints, Saved

log = logs.get_logger("checkpoints")


class CheckpointWriter:
    """The checkpoints of one attempt. `source` is one line that changes with what an answer is computed from."""

    def __init__(self, checkpoints: Checkpoints, attempt: Attempt) -> None:
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()

    async def sources(self) -> dict[str, Saved]:
        """Return the steps of which earlier attempts and runs have saved an answer; none where the database fails."""
        try:
            return await asyncio.to_thread(self._checkpoints.sources, self._attempt.job_id)
        except SQLAlchemyError as error:
            self._warn("checkpoints cannot be read", error)
            return {}

    async def load(self, step: Step, source: str) -> Any:
        """Return the answer of `step` computed from `source`, None where there is none that can be used."""
        try:
            return await asyncio.to_thread(self._read, step, source)
        except Exception as error:  # noqa: BLE001 - whatever it is, the step can run again
            self._warn("a checkpoint cannot be used", error, step)
            return None

    def _read(self, step: Step, source: str) -> Any:
        body = self._checkpoints.load(self._attempt.job_id, step)
        if body is None:
            return None
        saved_source, _, answer = body.partition(b"\n")
        if saved_source != source.encode():
            log.info("a checkpoint is of something else", extra=logs.about(self._attempt.job_id, stage=step))
            return None
        return decode(step, answer)

    def save(self, step: Step, source: str, answer: Any) -> None:
        """Store the answer of `step` with its `source`, beside the work: returns at once."""
        write = asyncio.create_task(self._save(step, source, answer))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _save(self, step: Step, source: str, answer: Any) -> None:
        try:
            async with self._writing:  # one after the other, so that the later answer of a step stays
                await asyncio.to_thread(self._write, step, source, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on with the answer
            self._warn("a checkpoint is not kept", error, step)

    def _write(self, step: Step, source: str, answer: Any) -> None:
        if not self._checkpoints.save(self._attempt, step, source.encode() + b"\n" + encode(step, answer)):
            log.info("this attempt no longer counts", extra=logs.about(self._attempt.job_id, stage=step))

    async def flush(self) -> None:
        """Wait until all answers are stored."""
        await asyncio.gather(*self._writes)

    def _warn(self, message: str, error: Exception, step: Step | None = None) -> None:
        log.warning(message, extra=logs.about(self._attempt.job_id, stage=step, error=type(error).__name__))
