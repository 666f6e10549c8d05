"""A refusal as ASGI messages, and the headers that every answer has. Knows nothing of routes, keys or Ray."""

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
"""No browser guesses a type, keeps a transcript, tells an address on, or shows an answer as a page or in a frame."""

Headers = list[tuple[bytes, bytes]]


def messages(refusal: ApiError, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> tuple[Message, Message]:
    """The start and the body of the answer; `headers` go with it."""
    content = json.dumps(body(refusal.code, str(refusal), refusal.job_id)).encode()
    own = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
    raw: Headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    start = {"type": "http.response.start", "status": refusal.status, "headers": [*raw, *SAFE_HEADERS, *headers]}
    return start, {"type": "http.response.body", "body": content}


async def refuse(scope: Scope, send: Send, refusal: ApiError) -> None:
    """Answer a request, or a handshake of a WebSocket, with a refusal."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # which every server makes a 403 of
        return
    prefix = "websocket." if scope["type"] == "websocket" else ""
    for message in messages(refusal):
        await send({**message, "type": prefix + message["type"]})


class SafeHeaders:
    """ASGI middleware: adds `SAFE_HEADERS` where an answer does not say otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and complete what comes back."""

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in SAFE_HEADERS if header[0] not in said),
                ]
            await send(message)

        await self._app(scope, receive, completed)
