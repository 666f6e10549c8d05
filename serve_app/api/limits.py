"""What a request must pass before a route sees it: the body's size, the client's key, the client's rate."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from serve_app.api.errors import ApiError, RateLimitedError, RequestTooLargeError, UnauthorizedError, body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


HEALTH = "/health"


class BodyLimit:
    """ASGI middleware: answers 413 to a body over `max_bytes`, by its header or while it is read."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await refuse(send, RequestTooLargeError())
            return
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen, answered
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes and not answered:
                answered = True
                await refuse(send, RequestTooLargeError())
            return {"type": "http.disconnect"} if answered else message

        async def unless_answered(message: Message) -> None:
            if not answered:
                await send(message)

        await self._app(scope, counted, unless_answered)


class Gate:
    """ASGI middleware: who may ask, and how often; before the body is read. Keys are known by their SHA-256 only."""

    def __init__(self, app: ASGIApp, *, key_hashes: Sequence[str] | None, rate: str | None) -> None:
        self._app = app
        self._hashes = None if key_hashes is None else [bytes.fromhex(text) for text in key_hashes]
        self._rate = parse(rate) if rate else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on who may ask; `/health` is open to all."""
        if scope["type"] == "http" and scope["path"] != HEALTH:
            try:
                await self._check(scope)
            except ApiError as refusal:
                await refuse(send, refusal)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        client = str((scope.get("client") or ("unknown",))[0])
        if self._hashes is not None:
            client = self._known_key(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))
        if self._rate and not await self._limiter.hit(self._rate, client):
            reset_at, _ = await self._limiter.get_window_stats(self._rate, client)
            raise RateLimitedError(retry_after_s=max(1, round(reset_at - time.time())))

    def _known_key(self, header: str) -> str:
        scheme, _, key = header.partition(" ")
        given = hashlib.sha256(key.strip().encode()).digest()
        known = [hmac.compare_digest(given, wanted) for wanted in self._hashes or ()]
        if scheme.lower() != "bearer" or not any(known):
            raise UnauthorizedError
        return given.hex()


async def refuse(send: Send, refusal: ApiError) -> None:
    """Answer with the one body of all refusals."""
    content = json.dumps(body(refusal.code, str(refusal), None)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})
