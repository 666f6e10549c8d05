"""Middlewares that check a request before its route: the body's size, the client's key, the client's rate."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from deployments import logs
from serve_app.api.errors import ApiError, RateLimitedError, RequestTooLargeError
from serve_app.api.refusal_messages import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from limits import RateLimitItem
    from limits.aio.storage import Storage
    from pydantic import SecretStr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from serve_app.api.keys import KeyRing

HEALTH = "/health"
STORAGE_S = 0.5
"""Timeout of the shared storage; a request has five seconds in all."""
log = logs.get_logger("api")


class BodyLimit:
    """ASGI middleware: answers 413 to a body over `max_bytes`, by its header or while it is read.

    Needed where Ray's proxies run without `proxy_guard`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless its body is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await refuse(scope, send, RequestTooLargeError())
            return
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen, answered
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes and not answered:
                answered = True
                await refuse(scope, send, RequestTooLargeError())
            return {"type": "http.disconnect"} if answered else message

        async def unless_answered(message: Message) -> None:
            if not answered:
                await send(message)

        await self._app(scope, counted, unless_answered)


class Gate:
    """ASGI middleware: checks the client's key and rate before the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing | None,
        rate: str | None,
        storage: Storage,
        no_key: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`no_key` returns whether a path is open without a key."""
        self._app = app
        self._open = no_key
        self._keys = keys
        self._rate = parse(rate) if rate else None
        self._limiter = MovingWindowRateLimiter(storage)
        self._own_limiter = MovingWindowRateLimiter(MemoryStorage())
        """Used while the shared storage does not answer: each replica then counts its own requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on allowed requests. `/health` is open to all; files without job data need no key."""
        if scope["type"] == "http" and scope["path"] != HEALTH:
            try:
                await self._check(scope)
            except ApiError as refusal:
                await refuse(scope, send, refusal)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        client = str((scope.get("client") or ("unknown",))[0])
        if self._keys is not None and not self._open(scope["path"]):
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            client = await self._keys.check(authorization)
        if self._rate and (wait_s := await self._wait_s(self._rate, client)):
            raise RateLimitedError(retry_after_s=wait_s)

    async def _wait_s(self, rate: RateLimitItem, client: str) -> int:
        """Count a request; return the seconds to wait before the next one, 0 if this one is within the rate."""
        try:
            async with asyncio.timeout(STORAGE_S):
                return await _hit(self._limiter, rate, client)
        except Exception as error:  # noqa: BLE001 - whatever the storage's client raises
            log.warning("the shared rate limits are away", extra={"error": type(error).__name__})
            return await _hit(self._own_limiter, rate, client)


async def _hit(limiter: MovingWindowRateLimiter, rate: RateLimitItem, client: str) -> int:
    if await limiter.hit(rate, client):
        return 0
    reset_at, _ = await limiter.get_window_stats(rate, client)
    return max(1, math.ceil(reset_at - time.time()))


def open_storage(url: SecretStr | None) -> Storage:
    """Return the store for counting requests: Redis for all replicas, or this process's memory. Does not connect."""
    if url is None:
        return MemoryStorage()
    return RedisStorage(f"async+{url.get_secret_value()}", implementation="redispy", socket_timeout=STORAGE_S)
