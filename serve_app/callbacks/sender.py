"""Sends callbacks: signs them, posts each once, and records in the outbox what came of it. Knows nothing of jobs."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from deployments import logs
from deployments.net.client import Answer, CallbackClient, NetError
from serve_app.callbacks import progress_tally
from serve_app.callbacks.payloads import with_metadata
from serve_app.callbacks.retry_schedule import RetrySchedule
from serve_app.observability.metrics import fault_class
from serve_app.observability.tracing import untraced
from serve_app.storage.outbox import origin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from serve_app.jobs.job import CallbackExtras
    from serve_app.observability.tracing import Trace
    from serve_app.storage.outbox import Outbox

LATEST_START_S = 5.0
"""After a claim was asked for. A process that was stopped in between may find that its claim has run out."""
SETTLE_AGAIN_S = 0.5
GONE = 410
SCHEDULE = RetrySchedule()

log = logs.get_logger("callbacks")


class Sender:
    """Tries callbacks, each call once; the outbox keeps the senders of several processes apart."""

    def __init__(
        self,
        client: CallbackClient,
        outbox: Outbox,
        *,
        secrets: Sequence[str] = (),
        trace_of: Callable[[str], Awaitable[Trace]] = untraced,
        count_progress: Callable[[str, str], None] = progress_tally.count,
    ) -> None:
        """Create a sender.

        Args:
            client: Posts callbacks.
            outbox: Says which callbacks are due and which receivers keep failing.
            secrets: Each signs every callback.
            trace_of: Finds the trace of a job by its id.
            count_progress: Counts a progress callback's outcome and class of fault, see `progress_tally`.
        """
        self._client = client
        self._outbox = outbox
        self._trace_of = trace_of
        self._count_progress = count_progress
        self._webhooks = [Webhook(secret) for secret in secrets]

    async def _try(
        self, url: str, body: bytes, own: Mapping[str, str] | None, *, message_id: str, sequence: int
    ) -> tuple[Answer | None, str | None]:
        """Post once, with the caller's `own` headers; return the answer and the error's kind, if there is one."""
        try:
            answer = await self._client.post(url, body, {**(own or {}), **self._headers(body, message_id, sequence)})
        except NetError as failure:
            return None, failure.kind
        return answer, None if 200 <= answer.status < 300 else f"http_{answer.status}"  # noqa: PLR2004 - 2xx

    def _headers(self, body: bytes, message_id: str, sequence: int) -> dict[str, str]:
        """Return the headers of Standard Webhooks 1.0. The library takes a naive time for UTC: it gets an aware one."""
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
        """Try a terminal callback once if it is due and its receiver may be tried; True: it is acknowledged."""
        claimed_at = time.monotonic()
        callback = await asyncio.to_thread(self._outbox.claim, callback_id)
        if callback is None:
            return False
        trace = await self._trace_of(callback.job_id)
        origin = origin_of(callback.url)
        permit = await asyncio.to_thread(self._outbox.breaker.acquire, origin)
        started = time.monotonic()
        if not permit.granted or started - claimed_at > LATEST_START_S:
            await asyncio.to_thread(self._outbox.postpone, callback, permit.retry_at)
            return False
        with trace.span("terminal callback", parent_id=trace.post_id, number=callback.attempts) as span:
            answer, error = await self._try(
                callback.url, callback.body, callback.headers, message_id=callback.id, sequence=callback.sequence
            )
            span["error"] = error
        if error is None:
            await _store_for_sure(partial(self._outbox.mark_delivered, callback))
            trace.add("acknowledged", callback.due_since, time.time(), parent_id=trace.post_id)
        elif answer and answer.status == GONE:
            await _store_for_sure(partial(self._outbox.give_up, callback, error=error))
        else:
            age_s = callback.age_s + time.monotonic() - claimed_at
            retry_after_s = answer.retry_after_s if answer else None
            wait_s = SCHEDULE.wait_s(attempts=callback.attempts, age_s=age_s, retry_after_s=retry_after_s)
            if wait_s is None:
                await asyncio.to_thread(self._outbox.give_up, callback, error=error)
            else:
                await asyncio.to_thread(self._outbox.schedule_retry, callback, after_s=wait_s, error=error)
        await self._record(origin, error)
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

    async def send_progress(self, job_id: str, url: str, body: bytes, *, message_id: str, sequence: int) -> bool:
        """Try a progress callback once, unless a newer one exists; return False where it should be tried again."""
        trace = await self._trace_of(job_id)
        origin = origin_of(url)
        extras, dropped = await asyncio.to_thread(self._extras_of_progress, origin, job_id, sequence)
        if extras is None:
            self._count_progress(dropped, fault_class(None))
            return True
        body = with_metadata(body, extras.custom_metadata)
        with trace.span("progress callback", sequence=sequence) as span:
            answer, error = await self._try(url, body, extras.headers, message_id=message_id, sequence=sequence)
            span["error"] = error
        self._count_progress("failed" if error else "delivered", fault_class(error))
        await self._record(origin, error, progress=True)
        return error is None or (answer is not None and answer.status == GONE)

    def _extras_of_progress(self, origin: str, job_id: str, sequence: int) -> tuple[CallbackExtras | None, str]:
        """Return what the caller adds to a progress callback; None, and the outcome, where it is not to be sent."""
        extras = self._outbox.extras_of_newest(job_id, sequence)
        if extras is None:
            return None, "superseded"
        return (extras, "") if self._outbox.breaker.acquire_for_progress(origin) else (None, "circuit_open")

    async def _record(self, origin: str, error: str | None, *, progress: bool = False) -> None:
        breaker = self._outbox.breaker
        if error is None:
            await asyncio.to_thread(breaker.record_success, origin)
        else:
            await asyncio.to_thread(breaker.record_failure, origin, progress=progress)


async def _store_for_sure(settle: Callable[[], None]) -> None:
    """Call `settle`, after which the callback is not sent again, until the database has taken it."""
    while True:
        try:
            await asyncio.to_thread(settle)
        except SQLAlchemyError:
            log.exception("an acknowledgement is not stored yet")
            await asyncio.sleep(SETTLE_AGAIN_S)
        else:
            return
