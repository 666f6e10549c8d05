"""Reports one job's progress to its backend: the newest wins, at most one a second, at least one each heartbeat."""

from __future__ import annotations

import asyncio
import time
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from serve_app.callbacks import payloads
from serve_app.storage.outbox import new_message_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from deployments.errors import Locale
    from serve_app.callbacks.sender import Sender
    from serve_app.jobs.progress import Progress

PROGRESS_TRIES = 3
MIN_INTERVAL_S = 1.0
IN_FLIGHT_S = 0.5

log = logs.get_logger("callbacks")


@dataclass(eq=False)
class ProgressReporter:
    """Stores the progress of one attempt and sends it to the job's backend, until it is closed."""

    sender: Sender
    _: KW_ONLY
    job_id: str
    url: str | None
    locale: Locale
    now: Callable[[], Progress]
    report: Callable[[Progress], Awaitable[int | None]]
    """Stores progress; returns the callback's number, None where the attempt no longer counts."""
    heartbeat_s: float

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self._fresh = asyncio.Event()
        self._newest: tuple[Progress, int] | None = None
        self._posting: asyncio.Task[bool] | None = None
        self._tasks = [asyncio.create_task(self._store())]
        if self.url is not None:
            self._tasks.append(asyncio.create_task(self._send(self.url)))

    def changed(self) -> None:
        """Look at the progress again: it may have changed."""
        self._changed.set()

    async def close(self) -> None:
        """Stop. A try in flight has a moment to arrive before the job's end, which waits no longer."""
        self._tasks[0].cancel()
        if self._posting is not None:
            await asyncio.wait({self._posting}, timeout=IN_FLIGHT_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _store(self) -> None:
        """Store progress when it has changed, and when a heartbeat is due."""
        stored: Progress | None = None
        due = 0.0
        while True:
            self._changed.clear()
            now = self.now()
            if now == stored and not await self._is_due(due):
                continue
            due = time.monotonic() + self.heartbeat_s
            try:
                sequence = await self.report(now)
            except SQLAlchemyError:
                log.exception("progress not stored", extra=logs.about(self.job_id))
                stored = None  # or its answer was lost: the manager would wait as if it had been sent
            else:
                if sequence is None:
                    return
                stored = now
                self._newest = (now, sequence)
                self._fresh.set()
            await asyncio.sleep(MIN_INTERVAL_S)

    async def _is_due(self, due: float) -> bool:
        """Wait until `changed` is called; return True where the heartbeat is due before."""
        try:
            async with asyncio.timeout(due - time.monotonic()):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _send(self, url: str) -> None:
        """Send the newest progress whenever there is one; a newer one ends the tries of an older one."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if self._newest is not None:
                await self._send_one(url, *self._newest)

    async def _send_one(self, url: str, progress: Progress, sequence: int) -> None:
        body = payloads.progress(self.job_id, progress, locale=self.locale)
        message_id = new_message_id()
        for _ in range(PROGRESS_TRIES):
            spacing = asyncio.create_task(asyncio.sleep(MIN_INTERVAL_S))
            self._posting = asyncio.create_task(
                self.sender.send_progress(self.job_id, url, body, message_id=message_id, sequence=sequence)
            )
            try:
                taken = await self._posting
            except SQLAlchemyError:
                taken = False
            await spacing
            if taken or self._fresh.is_set():
                return
