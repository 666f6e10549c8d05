"""Video servers of a test: honest and lying ones, each on a loopback port, in a thread beside the test."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from tests.support.servers import serving, whole

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "X-Amz-Signature=tell-nobody"  # noqa: S105 - made up, looked for in everything that comes out


class Sources:
    """Starts a server per handler; all end with the context."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def serve(self, handler: Any, name: str = "video.mp4") -> str:
        """The URL of a server that answers every request with `handler`."""
        server = self._call(self._stack.enter_async_context(serving(handler)))
        url: str = server.url(f"/videos/{name}", SECRET)
        return url

    def file(self, path: Path, name: str | None = None) -> str:
        """The URL of a server that honestly serves a file."""
        return self.serve(whole(path.read_bytes()), name or path.name)
