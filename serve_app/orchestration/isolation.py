"""Isolation: calls under which a replica died are made one at a time, over all jobs.

A replica that dies takes the calls of several jobs with it, and its successor would get all of them at once again: the
call that kills would use up the retries of the others. Made by itself, it is recognised as the cause, and the others
succeed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.storage.leases import BEAT_S, Lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serve_app.storage.database import Database

LEASE_NAME = "quarantine"
"""As published: processes of the release before ask for the same lease."""
POLL_S = 0.3

log = logs.get_logger("quarantine")


class Isolation:
    """Give one job's calls a lease that only one call of all jobs holds at a time."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._own_turn = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Wait for the lease, and hold it while the block runs. Where the database is away, run the block without."""
        async with self._own_turn:
            lease = Lease(self._db, LEASE_NAME)
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
        log.warning("a call goes on without isolation", extra={"error": type(error).__name__})


async def _renew(lease: Lease) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(lease.hold)
