"""Changes of jobs as server-sent events: looked up once a second for all who listen, and never while nobody does.

A stream is short and its listener opens the next: so none outlives Serve's deadline for a request, a key's end, or the
patience of a stopping server. Knows nothing of the database: it is given who looks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from deployments import logs
from serve_app.api.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from serve_app.api.schemas import JobLine

    Look = Callable[[int | None], Awaitable[tuple[int, list[JobLine]]]]

LOOK_EVERY_S = 1.0
STREAM_S = 15.0
"""Serve ends a request after 30 s, in all our configs, and waits for those under way when a replica leaves."""
HEARTBEAT_S = 5.0
LISTENERS = 32
"""Of one process; each holds one of the ingress's places for requests."""
BEHIND = 1000
"""Messages that a listener may leave unread before its stream is ended."""
RETRY_AFTER_S = 15
OPEN = b"event: open\ndata: {}\n\n"
HEARTBEAT = b":\n\n"
log = logs.get_logger("api")


class Feed:
    """One for a process."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._listeners: dict[asyncio.Queue[bytes | None], float] = {}
        """And until when they listen, in the loop's time."""
        self._newest: int | None = None
        self._told: dict[str, bytes] = {}
        """What the jobs of the last look were told as."""
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> AsyncIterator[bytes]:
        """A stream that tells every change from now on. Raises `UnavailableError`: too many listen, or no database."""
        if len(self._listeners) >= LISTENERS:
            raise UnavailableError("Too many listen already; ask for the list instead", retry_after_s=RETRY_AFTER_S)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND)
        until = asyncio.get_running_loop().time() + STREAM_S
        self._listeners[queue] = until
        try:
            async with self._turn:  # what is told from now on is what differs from this
                if self._task is None:
                    self._newest, self._told = None, {}
                    await self._step()
                    self._task = asyncio.create_task(self._keep())
        except BaseException:
            self._listeners.pop(queue, None)
            raise
        return self._stream(queue, until)

    async def _stream(self, queue: asyncio.Queue[bytes | None], until: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        message: bytes | None = OPEN
        try:
            while message is not None and loop.time() < until:
                yield message
                message = HEARTBEAT
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(HEARTBEAT_S, max(0.0, until - loop.time()))):
                        message = await queue.get()
        finally:
            self._listeners.pop(queue, None)

    async def _keep(self) -> None:
        """Look while somebody listens; where that fails the streams end, and their listeners see why."""
        try:
            while self._listeners:
                await asyncio.sleep(LOOK_EVERY_S)
                self._forget_the_gone()
                for message in await self._step():
                    self._tell(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next listener looks again
            log.warning("changes of jobs cannot be told", extra={"error": type(error).__name__})
        finally:
            self._task = None
            self._tell(None)

    async def _step(self) -> list[bytes]:
        """What has changed since the last look."""
        self._newest, lines = await self._look(self._newest)
        now = {line.job_id: b"event: job\ndata: " + line.model_dump_json().encode() + b"\n\n" for line in lines}
        before, self._told = self._told, now
        return [message for job_id, message in now.items() if before.get(job_id) != message]

    def _tell(self, message: bytes | None) -> None:
        for queue in [*self._listeners]:
            if queue.full():
                del self._listeners[queue]
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(message)

    def _forget_the_gone(self) -> None:
        """Those who went before their stream began never say so."""
        now = asyncio.get_running_loop().time()
        for queue in [queue for queue, until in self._listeners.items() if until < now]:
            del self._listeners[queue]
