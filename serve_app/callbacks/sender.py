"""Sends callbacks: signs, posts, and settles what came of it.

`Sender` makes one try of anything. `ProgressTeller` tells one job's progress: the newest wins, at most one a second,
at least one in 30 s. Neither ever slows a job: they work beside it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from deployments import logs
from deployments.net.client import Answer, CallbackClient, NetError
from serve_app.callbacks import payloads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from deployments.errors import Locale
    from serve_app.callbacks.outbox import Outbox
    from serve_app.jobs.progress import Progress

PROGRESS_TRIES = 3
MIN_INTERVAL_S = 1.0
GONE = 410

log = logs.get_logger("callbacks")


class Sender:
    """One try at a time, for whoever owns it; the outbox keeps senders of several processes apart."""

    def __init__(self, client: CallbackClient, outbox: Outbox, *, secrets: Sequence[str] = ()) -> None:
        self._client = client
        self._outbox = outbox
        self._webhooks = [Webhook(secret) for secret in secrets]

    async def _try(self, url: str, body: bytes, *, message_id: str, sequence: int) -> tuple[Answer | None, str | None]:
        """Post once and note how the receiver did: its answer if any, and a word for what went wrong if anything."""
        answer: Answer | None = None
        try:
            answer = await self._client.post(url, body, self._headers(body, message_id, sequence))
            error = None if 200 <= answer.status < 300 else f"http_{answer.status}"  # noqa: PLR2004 - 2xx
        except NetError as failure:
            error = failure.kind
        await asyncio.to_thread(self._outbox.note, origin_of(url), ok=error is None)
        return answer, error

    def _headers(self, body: bytes, message_id: str, sequence: int) -> dict[str, str]:
        """Standard Webhooks 1.0; the library takes naive times for UTC, so it gets an aware one."""
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "x-ml-sequence": str(sequence),
        }
        if self._webhooks:
            signatures = (webhook.sign(message_id, now, body.decode()) for webhook in self._webhooks)
            headers["webhook-signature"] = " ".join(signatures)
        return headers

    async def deliver(self, callback_id: str) -> bool:
        """Try a terminal callback once if it is due and its receiver may be tried; True when it is acknowledged."""
        callback = await asyncio.to_thread(self._outbox.claim, callback_id)
        if callback is None:
            return False
        probe_at = await asyncio.to_thread(self._outbox.may_try, origin_of(callback.url))
        if probe_at is not None:
            await asyncio.to_thread(self._outbox.postpone, callback, probe_at)
            return False
        started = time.monotonic()
        answer, error = await self._try(callback.url, callback.body, message_id=callback.id, sequence=callback.sequence)
        if error is None:
            await asyncio.to_thread(self._outbox.delivered, callback)
        elif answer and answer.status == GONE:
            await asyncio.to_thread(self._outbox.refused, callback, error=error)
        else:
            wait_s = answer.retry_after_s if answer else None
            await asyncio.to_thread(self._outbox.failed, callback, error=error, retry_after_s=wait_s)
        log.info(
            "terminal callback",
            extra=logs.about(
                callback.job_id,
                attempt=callback.attempts,
                error=error,
                seconds=round(time.monotonic() - started, 3),
                bytes=len(callback.body),
            ),
        )
        return error is None

    async def tell(self, url: str, body: bytes, *, message_id: str, sequence: int) -> bool:
        """Try a progress callback once; False where it should be tried again."""
        if await asyncio.to_thread(self._outbox.may_try, origin_of(url)) is not None:
            return True  # a failing receiver is probed by somebody else; this one is dropped
        answer, error = await self._try(url, body, message_id=message_id, sequence=sequence)
        return error is None or (answer is not None and answer.status == GONE)


class ProgressTeller:
    """Tells the backend of one job how far it is, until it is closed.

    `report` stores the progress and returns the callback's number, None where this attempt no longer counts.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        job_id: str,
        url: str | None,
        locale: Locale,
        now: Callable[[], Progress],
        report: Callable[[Progress], Awaitable[int | None]],
        heartbeat_s: float,
    ) -> None:
        self._sender = sender
        self._job_id = job_id
        self._url = url
        self._locale: Locale = locale
        self._now = now
        self._report = report
        self._heartbeat_s = heartbeat_s
        self._changed = asyncio.Event()
        self._fresh = asyncio.Event()
        self._newest: tuple[Progress, int] | None = None
        self._tasks = [asyncio.create_task(self._keep())]
        if url is not None:
            self._tasks.append(asyncio.create_task(self._send(url)))

    def changed(self) -> None:
        """There may be something new to tell."""
        self._changed.set()

    async def close(self) -> None:
        """Stop, a try in flight included: what comes next is the end, which must not wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self) -> None:
        """Store what is new, and what is not when the heartbeat is due."""
        told: Progress | None = None
        due = 0.0
        while True:
            self._changed.clear()
            now = self._now()
            if now == told and not await self._is_due(due):
                continue
            due = time.monotonic() + self._heartbeat_s
            try:
                sequence = await self._report(now)
            except SQLAlchemyError:
                log.exception("progress not stored", extra=logs.about(self._job_id))
            else:
                if sequence is None:
                    return
                told = now
                self._newest = (now, sequence)
                self._fresh.set()
            await asyncio.sleep(MIN_INTERVAL_S)

    async def _is_due(self, due: float) -> bool:
        """Wait for a change; True when the heartbeat comes first, however many changes changed nothing."""
        try:
            async with asyncio.timeout(due - time.monotonic()):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    async def _send(self, url: str) -> None:
        """Send the newest, over and over; an older one is given up as soon as there is a newer."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if self._newest is not None:
                await self._send_one(url, *self._newest)

    async def _send_one(self, url: str, progress: Progress, sequence: int) -> None:
        body = payloads.progress(self._job_id, progress, locale=self._locale)
        message_id = payloads.new_message_id()
        for _ in range(PROGRESS_TRIES):
            spacing = asyncio.create_task(asyncio.sleep(MIN_INTERVAL_S))
            try:
                taken = await self._sender.tell(url, body, message_id=message_id, sequence=sequence)
            except SQLAlchemyError:
                taken = False
            await spacing
            if taken or self._fresh.is_set():
                return


def origin_of(url: str) -> str:
    """Scheme, host and port: what a receiver is known by."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
