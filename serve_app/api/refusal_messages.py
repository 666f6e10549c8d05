"""Sends refusals as ASGI messages, and adds the headers that every response has. Knows no routes, keys or Ray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from serve_app.api.errors import ApiError, body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Browsers then guess no media type, store no response, send no referrer, and render nothing as a page or frame."""

Headers = list[tuple[bytes, bytes]]


def messages(refusal: ApiError, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> tuple[Message, Message]:
    """Return the start and the body of the response, with `headers` added."""
    content = json.dumps(body(refusal.code, str(refusal), refusal.job_id)).encode()
    own = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
    raw: Headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    start = {"type": "http.response.start", "status": refusal.status, "headers": [*raw, *SAFE_HEADERS, *headers]}
    return start, {"type": "http.response.body", "body": content}


async def refuse(scope: Scope, send: Send, refusal: ApiError) -> None:
    """Answer a request or a WebSocket's handshake with a refusal."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # servers answer with 403
        return
    prefix = "websocket." if scope["type"] == "websocket" else ""
    for message in messages(refusal):
        await send({**message, "type": prefix + message["type"]})


class SafeHeaders:
    """ASGI middleware: adds those of `SAFE_HEADERS` that a response does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to the response."""

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in SAFE_HEADERS if header[0] not in said),
                ]
            await send(message)

        await self._app(scope, receive, completed)
