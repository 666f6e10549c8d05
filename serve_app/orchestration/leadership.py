"""Which of several managers on one database works: the one that holds the lease.

Knows nothing of jobs, except that what an earlier manager left unfinished is reset at a takeover.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.orchestration.job_actor import MANAGER_NAME
from serve_app.storage.clock_jumps import ClockJumpDetector, shift_back, shorten_waits
from serve_app.storage.leases import BEAT_S, LEASE_S, Lease
from serve_app.storage.server_state import set_draining

if TYPE_CHECKING:
    from serve_app.storage.database import Database
    from serve_app.storage.job_queue import JobQueue

log = logs.get_logger("manager")


class Leadership:
    """Take the manager's lease and renew it; correct stored times when the machine's clock is set back."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        self._database = database
        self._queue = queue
        self._lease = Lease(database, MANAGER_NAME)
        self._clock_jumps = ClockJumpDetector()
        self._back_s = 0.0
        self._renewed_at = 0.0
        self.held: bool | None = None
        """Whether this manager has the lease; None until it has asked for the first time."""

    async def renew(self) -> bool:
        """Renew the lease where that is due; return whether this manager has it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database cannot be read or written.
        """
        await self._correct_clock()
        if self.held and time.monotonic() - self._renewed_at < BEAT_S:
            return True
        held = await asyncio.to_thread(self._lease.hold)
        self._renewed_at = time.monotonic()
        if held and not self.held:
            log.info("this manager works")
            await asyncio.to_thread(self._take_over)
        elif not held and self.held is not False:
            log.warning("another manager works on this database: this one stands by")
        self.held = held
        return held

    @property
    def is_overdue(self) -> bool:
        """Whether the lease that this manager has was not renewed for longer than it lasts."""
        return bool(self.held) and time.monotonic() - self._renewed_at > LEASE_S

    async def give_back(self) -> None:
        """Leave the lease to another manager, which then need not wait until it runs out."""
        try:
            await asyncio.to_thread(self._lease.give_back)
        except SQLAlchemyError:
            log.warning("the lease is not given back; it runs out")

    def _take_over(self) -> None:
        set_draining(self._database, draining=False)
        self._queue.reset_prefetch()
        shorten_waits(self._database)

    async def _correct_clock(self) -> None:
        self._back_s += self._clock_jumps.set_back_s()
        if self.held and self._back_s:
            log.warning("the clock was set back", extra={"seconds": round(self._back_s)})
            await asyncio.to_thread(shift_back, self._database, self._back_s)
        self._back_s = 0.0
