"""Streams changes of jobs as server-sent events: polls once a second for all listeners, and not at all without any.

A stream lasts some seconds, then its listener opens the next one: so no stream outlives Serve's request timeout, the
revocation of a key, or the shutdown of a replica. Knows nothing of the database: the function that polls is passed in.
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

    Changes = Callable[[int | None], Awaitable[tuple[int, list[JobLine]]]]

POLL_S = 1.0
STREAM_S = 15.0
"""Below the request timeout of our configs, 30 s. A replica that leaves waits for its open streams."""
HEARTBEAT_S = 5.0
LISTENERS = 32
"""Most listeners of one process; each takes one of the ingress's ongoing requests."""
BEHIND = 1000
"""Unread messages after which a listener's stream is ended."""
RETRY_AFTER_S = 15
OPEN = b"event: open\ndata: {}\n\n"
HEARTBEAT = b":\n\n"
log = logs.get_logger("api")


class JobEvents:
    """The listeners of one process, and the task that polls for them."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._listeners: dict[asyncio.Queue[bytes | None], float] = {}
        """Queue to the loop's time at which its stream ends."""
        self._newest: int | None = None
        self._messages: dict[str, bytes] = {}
        """Job to its message as of the last poll."""
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> AsyncIterator[bytes]:
        """Return a stream of all changes from now on. Raises `UnavailableError`: too many listeners, or no database."""
        if len(self._listeners) >= LISTENERS:
            raise UnavailableError("Too many listeners; ask for the list instead", retry_after_s=RETRY_AFTER_S)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND)
        until = asyncio.get_running_loop().time() + STREAM_S
        self._listeners[queue] = until
        try:
            async with self._turn:  # later messages are the differences from this poll
                if self._task is None:
                    self._newest, self._messages = None, {}
                    await self._step()
                    self._task = asyncio.create_task(self._poll())
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

    async def _poll(self) -> None:
        """Poll while there are listeners; on an error end all streams, so that the next request reports it."""
        try:
            while self._listeners:
                await asyncio.sleep(POLL_S)
                self._remove_expired()
                for message in await self._step():
                    self._send(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next listener polls again
            log.warning("changes of jobs cannot be sent", extra={"error": type(error).__name__})
        finally:
            self._task = None
            self._send(None)

    async def _step(self) -> list[bytes]:
        """Poll; return the messages for the jobs that have changed."""
        self._newest, lines = await self._changes(self._newest)
        now = {line.job_id: b"event: job\ndata: " + line.model_dump_json().encode() + b"\n\n" for line in lines}
        before, self._messages = self._messages, now
        return [message for job_id, message in now.items() if before.get(job_id) != message]

    def _send(self, message: bytes | None) -> None:
        for queue in [*self._listeners]:
            if queue.full():
                del self._listeners[queue]
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(message)

    def _remove_expired(self) -> None:
        """Remove listeners who disconnected before their stream began: nothing else reports them."""
        now = asyncio.get_running_loop().time()
        for queue in [queue for queue, until in self._listeners.items() if until < now]:
            del self._listeners[queue]
