"""The callback endpoints of contract 1.1 and 1.0 as a FastAPI router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request

from ml_server_client.errors import CallbackError, CallbackTooLargeError
from ml_server_client.receiver import MAX_BYTES, PATHS, Receiver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ml_server_client.memory import CallbackMemory
    from ml_server_client.models import Callback


def callback_router(
    handle: Callable[[Callback], Awaitable[None]],
    *,
    secrets: Sequence[str] | None = None,
    memory: CallbackMemory | None = None,
) -> APIRouter:
    """Return the routes that receive callbacks. The arguments are those of `Receiver`."""
    receiver = Receiver(handle, secrets=secrets, memory=memory)
    router = APIRouter(tags=["ml-server callbacks"])

    async def receive(request: Request) -> dict[str, str]:
        """Receive a callback of the ML Server. Any 2xx acknowledges it."""
        try:
            return {"status": await receiver.receive(await _read(request), request.headers)}
        except CallbackError as error:
            raise HTTPException(error.http_status, str(error)) from error

    for path in PATHS:
        router.post(path)(receive)
    return router


async def _read(request: Request) -> bytes:
    """Return the body's exact bytes. Raises `CallbackTooLargeError` as soon as they are too many."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise CallbackTooLargeError(f"the body is larger than {MAX_BYTES} bytes")
    return bytes(body)
