"""A backend that writes down what it is sent, and answers what the test tells it to."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from tests.support.leaks import WATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENDED = {"completed", "failed"}


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as it came in, and what was answered."""

    at: float
    path: str
    headers: dict[str, str]
    raw: bytes
    answered: int

    @property
    def body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def sequence(self) -> int:
        return int(self.headers["x-ml-sequence"])

    @property
    def ended(self) -> bool:
        return self.body["status"] in ENDED


class Backend:
    """Listens on a loopback port. `answer` maps what came in to a status; a status of 0 hangs until the end."""

    def __init__(self, answer: Callable[[Received, Sequence[Received]], int] | None = None) -> None:
        self._answer = answer or (lambda _new, _before: 200)
        self._received: list[Received] = []
        self._came = threading.Condition()
        self._closing = threading.Event()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                raw = self.rfile.read(length)
                if len(raw) < length:  # who sent it gave it up: nothing was received
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = backend._take(self.path, headers, raw)
                if status == 0:
                    backend._closing.wait(60)
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, headers: dict[str, str], raw: bytes) -> int:
        WATCH.callback(path, headers, raw)
        with self._came:
            new = Received(at=time.monotonic(), path=path, headers=headers, raw=raw, answered=0)
            status = self._answer(new, list(self._received))
            self._received.append(Received(at=new.at, path=path, headers=headers, raw=raw, answered=status))
            self._came.notify_all()
            return status

    def of(self, job_id: str) -> list[Received]:
        """All that came about a job, in order."""
        with self._came:
            return [received for received in self._received if received.body["job_id"] == job_id]

    def wait(self, job_id: str, enough: Callable[[Sequence[Received]], bool], *, within_s: float) -> list[Received]:
        """Wait until what came about a job is `enough`; fail the test when it does not become so."""
        with self._came:
            done = self._came.wait_for(
                lambda: enough([got for got in self._received if got.body["job_id"] == job_id]), within_s
            )
        received = self.of(job_id)
        assert done, f"within {within_s} s only: {[got.raw[:200] for got in received]}"
        return received

    def wait_end(self, job_id: str, *, within_s: float = 60) -> Received:
        """Wait for an acknowledged terminal callback."""
        received = self.wait(
            job_id, lambda came: any(got.ended and got.answered == 200 for got in came), within_s=within_s
        )
        return next(got for got in received if got.ended and got.answered == 200)
