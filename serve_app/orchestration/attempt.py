"""One attempt at a job in the database: its progress, the time it has spent, its end, and the leases that it holds.

Only a job's newest attempt may write: what an older one writes changes nothing. Knows nothing of callbacks or stages.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from deployments import logs
from serve_app.jobs.job import Attempt
from serve_app.storage.leases import BEAT_S, Lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from serve_app.jobs.job import Job, Outcome
    from serve_app.jobs.progress import Progress
    from serve_app.pipeline.steps import StageTimer
    from serve_app.storage.attempt_store import AttemptStore, Ending
    from serve_app.storage.database import Database

RETRY_WAITS_S = (1.0, 2.0, 5.0)
"""Between tries to write to a database that is away. There are as many as it takes, so that no work is lost."""
ISOLATION_LEASE = "quarantine"
"""As published: processes of the release before ask for the same lease."""
POLL_S = 0.3

Answer = TypeVar("Answer")
log = logs.get_logger("driver")
isolation_log = logs.get_logger("quarantine")


class RunningAttempt:
    """Write what an attempt does to its job's row."""

    def __init__(self, job: Job, store: AttemptStore, timer: StageTimer) -> None:
        self.id = Attempt.of(job)
        self._store = store
        self._timer = timer
        self._written_at = time.monotonic()

    async def save_progress(self, progress: Progress) -> int | None:
        """Store progress, which is a beat, too; return the next callback's number, None if the attempt is outdated."""
        return await asyncio.to_thread(
            self._store.save_progress, self.id, progress, spent_s=self._take_spent_s(), marks=self._timer.take()
        )

    async def hold_lease(self, work: asyncio.Task[Any]) -> None:
        """Raise the row's beats until cancelled; cancel `work` when the attempt no longer counts."""
        while True:
            await asyncio.sleep(max(0.0, self._written_at + BEAT_S - time.monotonic()))
            if time.monotonic() - self._written_at < BEAT_S:  # progress was saved meanwhile
                continue
            try:
                held = await asyncio.to_thread(self._store.beat, self.id, spent_s=self._take_spent_s())
            except SQLAlchemyError:
                log.exception("beat not stored", extra=logs.about(self.id.job_id))
                continue
            if not held:
                log.warning("this attempt no longer counts", extra=logs.about(self.id.job_id, attempt=self.id.number))
                work.cancel()
                return

    async def give_back(self) -> None:
        """Uncount the attempt, but not the time it took: the job goes on with another one, later."""
        change = partial(self._store.give_back, self.id, spent_s=self._take_spent_s(), marks=self._timer.take())
        await until_stored(self.id.job_id, change)
        log.info("left", extra=logs.about(self.id.job_id, run=self.id.run, attempt=self.id.number))

    async def finish(self, outcome: Outcome) -> Ending | None:
        """End the run; return what is to be sent now, None where the attempt no longer counted."""
        change = partial(self._store.finish_job, self.id, outcome, self._timer.take())
        return await until_stored(self.id.job_id, change)

    def _take_spent_s(self) -> float:
        """Return the seconds since the last write, and begin to count anew."""
        before, self._written_at = self._written_at, time.monotonic()
        return self._written_at - before


async def until_stored(job_id: str, change: Callable[[], Answer]) -> Answer:
    """Call `change` in a thread until the database is there; return its answer. Raises DataError, IntegrityError."""
    waits_s = chain(RETRY_WAITS_S, repeat(RETRY_WAITS_S[-1]))
    while True:
        try:
            return await asyncio.to_thread(change)
        except (DataError, IntegrityError):
            raise
        except SQLAlchemyError:
            log.exception("not stored yet", extra=logs.about(job_id))
            await asyncio.sleep(next(waits_s))


class Isolation:
    """Give calls under which a replica died a lease that only one call of all jobs holds at a time.

    A replica that dies takes the calls of several jobs with it, and its successor would get all of them at once again:
    the call that kills would use up the retries of the others. Made by itself, it is recognised as the cause.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._own_turn = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for the lease, and hold it while the block runs. Where the database is away, run the block without."""
        async with self._own_turn:
            lease = Lease(self._db, ISOLATION_LEASE)
            renewal = asyncio.create_task(_renew(lease))
            try:
                await _acquire(lease)
                yield
            finally:
                renewal.cancel()
                with suppress(SQLAlchemyError):  # it runs out
                    await asyncio.to_thread(lease.give_back)


async def _acquire(lease: Lease) -> None:
    try:
        while not await asyncio.to_thread(lease.hold):  # noqa: ASYNC110 - other processes hold it
            await asyncio.sleep(POLL_S)
    except SQLAlchemyError as error:
        isolation_log.warning("a call goes on without isolation", extra={"error": type(error).__name__})


async def _renew(lease: Lease) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(lease.hold)
