"""Calls under which a replica died are made one at a time, over all jobs.

A replica that dies takes the calls of several jobs along, and its successor would get all of them at once again: the
one that kills would use up its neighbours' retries. Alone, it is known by what it does, and the others get through.
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

NAME = "quarantine"
POLL_S = 0.3

log = logs.get_logger("quarantine")


class Quarantine:
    """One job's way to be alone: by a lease that its calls ask for one after the other."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._next = asyncio.Lock()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait for the turn, and have it for the time of the block."""
        async with self._next:
            lease = Lease(self._db, NAME)
            keeping = asyncio.create_task(_keep(lease))
            try:
                await _wait(lease)
                yield
            finally:
                keeping.cancel()
                with suppress(SQLAlchemyError):  # it runs out
                    await asyncio.to_thread(lease.give_back)


async def _wait(lease: Lease) -> None:
    """To be alone helps, but is no condition: where the database is away, the work goes on."""
    try:
        while not await asyncio.to_thread(lease.hold):  # noqa: ASYNC110 - of other processes, too
            await asyncio.sleep(POLL_S)
    except SQLAlchemyError as error:
        log.warning("nobody tells whose turn it is", extra={"error": type(error).__name__})


async def _keep(lease: Lease) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(lease.hold)
