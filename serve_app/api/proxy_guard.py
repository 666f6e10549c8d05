"""Middleware inside Serve's HTTP proxy: refuses too large bodies, and gives Serve's own errors the contract's form.

Without it the proxy reads heads and bodies of any size into memory, lets slow senders occupy the ingress, obeys headers
that are meant for Ray, and answers some requests itself, as plain text (no app, no replica, timeout).
`ml-server up` installs it; a cluster does by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH (docs/cluster.md).
Knows nothing of jobs, keys or settings: the proxies start before the app.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from deployments import logs
from serve_app.api import bounded_http, errors
from serve_app.api.errors import messages, refuse
from serve_app.exposure import FORWARDED
from serve_app.observability import metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "serve_app.api.proxy_guard.middlewares"
IMPORT_PATHS = frozenset({IMPORT_PATH, "serve_app.api.doorkeeper.middlewares"})
"""The old name is included: operators may still have set it."""
MAX_BYTES_VARIABLE = "ML_SERVER_LIMITS__REQUEST_BYTES"
MAX_BYTES = 65_536
BODY_S = 10.0
"""Timeout of receiving a body: enough for 64 kB by modem. The request's own timeout begins after it."""
RETRY_AFTER_S = 5
"""About the time that Serve takes to restart a replica."""
LINGER_S, LINGER_BYTES = 2.0, 1_000_000
"""Bounds of reading and discarding a refused body: many clients read the response only after sending all of it."""
OF_SERVE = frozenset({"/-/routes"})
"""Routes of Serve that are closed: this one lists the apps. `/-/healthz` stays open for load balancers."""
PASSED = frozenset(
    b"accept authorization content-length content-type host if-none-match"
    b" traceparent user-agent x-forwarded-for".split()
)
"""Headers that are passed on: all that the API reads, and what logs and proxies want. With some others a client could
disable Serve's timeout, or choose its replica."""
MARK = b"x-proxy-guard"
"""The header that tells the API that a request came through this middleware. A client's own is not passed on."""
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

log = logs.get_logger("proxy")


def middlewares() -> list[Middleware]:
    """Return the middlewares for Serve's proxy, which calls this by `IMPORT_PATH` before it starts uvicorn.

    Uvicorn then bounds what precedes a body, and believes no `X-Forwarded-For`: the API does (`Clients`).
    """
    bounded_http.install()
    os.environ[FORWARDED] = ""
    metrics.ANSWERS.begin(status="500")
    return [Middleware(ProxyGuard, max_bytes=int(os.environ.get(MAX_BYTES_VARIABLE) or MAX_BYTES))]


class ProxyGuard:
    """ASGI middleware around Serve's whole proxy."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, refuse it or pass the request on, and give every error response the contract's form."""
        counted = _Counted(scope["path"], send)
        if scope["type"] == "websocket" or scope["path"] in OF_SERVE:
            await refuse(scope, counted, errors.NotFoundError())
            return
        try:
            content = await self._read(scope, receive)
        except errors.ApiError as refusal:
            await _dismiss(receive, counted, refusal)
            return
        if content is None:
            return
        counted.began_s = time.monotonic()
        answer = _Answer(counted)
        try:
            await self._app({**scope, "headers": _passed(scope["headers"])}, _replay(content, receive), answer)
        except Exception as error:
            if answer.started:
                raise
            log.exception("the proxy failed", exc_info=error)
        if not answer.started:  # Serve may end its own 500 without any response; the client may also be gone
            await refuse(scope, counted, errors.InternalError())

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None if the client disconnected. Raises `ApiError` if it is too large or too slow."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise errors.RequestTooLargeError
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    content += message.get("body", b"")
                    if len(content) > self._max_bytes:
                        raise errors.RequestTooLargeError
                    if not message.get("more_body", False):
                        return bytes(content)
        except TimeoutError as late:
            raise errors.RequestTimeoutError from late


def _passed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    passed = [
        (name, value)
        for name, value in headers
        if (name in PASSED and value.isascii()) or (name == b"x-request-id" and REQUEST_ID.fullmatch(value))
    ]
    return [*passed, (MARK, b"1")]


def _replay(content: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read, then what follows on the connection."""
    parts: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replayed() -> Message:
        return parts.pop() if parts else await receive()

    return replayed


async def _dismiss(receive: Receive, send: Send, refusal: errors.ApiError) -> None:
    """Refuse a request whose body is still arriving, let the client read the response, and close the connection."""
    start, body = messages(refusal, headers=[(b"connection", b"close")])
    await send(start)
    await send({**body, "more_body": True})
    seen = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while seen < LINGER_BYTES:
                message = await receive()
                seen += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})


class _Counted:
    """Counts the response, and measures its time since `began_s`, when the request was complete."""

    def __init__(self, path: str, send: Send) -> None:
        self._route = metrics.route_of(path)
        self._send = send
        self.began_s: float | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            metrics.ANSWERS.inc(route=self._route, status=str(message["status"]))
            if self.began_s is not None:
                metrics.ANSWER_S.observe(time.monotonic() - self.began_s, route=self._route)
        await self._send(message)


class _Answer:
    """Passes on responses of the app, and replaces Serve's own errors by the contract's."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._replaced = False
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = dict(message["headers"])
            self._replaced = message["status"] >= 400 and headers.get(b"content-type", b"").startswith(b"text/plain")  # noqa: PLR2004 - errors begin there
            if self._replaced:
                kept = [(name, value) for name, value in headers.items() if name in {b"retry-after", b"x-request-id"}]
                for replacement in messages(_refusal(message["status"], headers), headers=kept):
                    await self._send(replacement)
        if not self._replaced:
            await self._send(message)


def _refusal(status: int, headers: dict[bytes, bytes]) -> errors.ApiError:
    """Return the contract's error for a status of Serve; Serve's own text is dropped."""
    known = {
        404: errors.NotFoundError,
        408: errors.RequestTimeoutError,
        429: errors.RateLimitedError,
        503: errors.UnavailableError,
    }
    made = known.get(status, errors.InternalError)
    waits = status in {429, 503} and b"retry-after" not in headers
    return made(retry_after_s=RETRY_AFTER_S if waits else None)
