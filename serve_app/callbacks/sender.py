"""Sends callbacks: signs, posts, and settles what came of it.

`Sender` makes one try of anything. `ProgressTeller` tells one job's progress: the newest wins, at most one a second,
at least one in 30 s. Neither ever slows a job: they work beside it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from deployments import logs
from deployments.net.client import Answer, CallbackClient, NetError
from serve_app.callbacks import payloads
from serve_app.observability.tracing import untraced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from deployments.errors import Locale
    from serve_app.jobs.progress import Progress
    from serve_app.observability.tracing import Trace
    from serve_app.storage.outbox import Outbox

PROGRESS_TRIES = 3
MIN_INTERVAL_S = 1.0
LATEST_START_S = 5.0
"""After asking for a claim: a process that was stopped meanwhile may find that the claim has run out."""
SETTLE_AGAIN_S = 0.5
GONE = 410

log = logs.get_logger("callbacks")


class Sender:
    """One try at a time, for whoever owns it; the outbox keeps senders of several processes apart."""

    def __init__(
        self,
        client: CallbackClient,
        outbox: Outbox,
        *,
        secrets: Sequence[str] = (),
        trace_of: Callable[[str], Awaitable[Trace]] = untraced,
    ) -> None:
        """`trace_of` finds the trace of a job by its id."""
        self._client = client
        self._outbox = outbox
        self._trace_of = trace_of
        self._webhooks = [Webhook(secret) for secret in secrets]

    async def _try(self, url: str, body: bytes, *, message_id: str, sequence: int) -> tuple[Answer | None, str | None]:
        """Post once: the receiver's answer if any, and a word for what went wrong if anything."""
        try:
            answer = await self._client.post(url, body, self._headers(body, message_id, sequence))
        except NetError as failure:
            return None, failure.kind
        return answer, None if 200 <= answer.status < 300 else f"http_{answer.status}"  # noqa: PLR2004 - 2xx

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
        asked = time.monotonic()
        callback = await asyncio.to_thread(self._outbox.claim, callback_id)
        if callback is None:
            return False
        trace = await self._trace_of(callback.job_id)
        origin = origin_of(callback.url)
        probe_at = await asyncio.to_thread(self._outbox.may_try, origin)
        started = time.monotonic()
        if probe_at is not None or started - asked > LATEST_START_S:
            await asyncio.to_thread(self._outbox.postpone, callback, probe_at or 0.0)
            return False
        with trace.span("terminal callback", parent_id=trace.post_id, number=callback.attempts) as told:
            answer, error = await self._try(
                callback.url, callback.body, message_id=callback.id, sequence=callback.sequence
            )
            told["error"] = error
        if error is None:
            await _for_sure(partial(self._outbox.delivered, callback))
            trace.add("acknowledged", callback.due_since, time.time(), parent_id=trace.post_id)
        elif answer and answer.status == GONE:
            await _for_sure(partial(self._outbox.refused, callback, error=error))
        else:
            wait_s = answer.retry_after_s if answer else None
            await asyncio.to_thread(self._outbox.failed, callback, error=error, retry_after_s=wait_s)
        await asyncio.to_thread(self._outbox.note, origin, ok=error is None)
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

    async def tell(self, job_id: str, url: str, body: bytes, *, message_id: str, sequence: int) -> bool:
        """Try a progress callback once unless there is something newer; False where it should be tried again."""
        trace = await self._trace_of(job_id)
        origin = origin_of(url)
        if not await asyncio.to_thread(self._outbox.may_tell, origin, job_id=job_id, sequence=sequence):
            return True  # dropped
        with trace.span("progress callback", sequence=sequence) as told:
            answer, error = await self._try(url, body, message_id=message_id, sequence=sequence)
            told["error"] = error
        await asyncio.to_thread(self._outbox.note, origin, ok=error is None, progress=True)
        return error is None or (answer is not None and answer.status == GONE)


async def _for_sure(settle: Callable[[], None]) -> None:
    """Store an answer after which nothing may be sent, however long the database is away."""
    while True:
        try:
            await asyncio.to_thread(settle)
        except SQLAlchemyError:
            log.exception("an acknowledgement is not stored yet")
            await asyncio.sleep(SETTLE_AGAIN_S)
        else:
            return


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
                taken = await self._sender.tell(self._job_id, url, body, message_id=message_id, sequence=sequence)
            except SQLAlchemyError:
                taken = False
            await spacing
            if taken or self._fresh.is_set():
                return


def origin_of(url: str) -> str:
    """Scheme, host and port: what a receiver is known by."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
