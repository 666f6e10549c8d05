"""A backend that writes down what it is sent, and answers, or misbehaves, as the test tells it to."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from tests.support.leaks import WATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENDED = {"completed", "failed"}
HANG, RESET, DRIP, SLOW = 0, 1, 2, 3
"""In place of a status: no answer, a broken connection, a byte now and then for ever, a 200 after a while."""
SLOW_S = (0.5, 3.0)
LONGER_THAN_PATIENCE_S = 60.0
DRIP_EVERY_S = 0.5
POLL_S = 0.05
"""Time in which the server notices that it is to end."""


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as it came in, and what was answered: a status, or one of the misdeeds above."""

    at: float
    path: str
    headers: dict[str, str]
    raw: bytes
    answered: int
    acknowledged: bool = False
    """A 200 has left."""

    @property
    def body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def job_id(self) -> str:
        return str(self.body["job_id"])

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def sequence(self) -> int:
        return int(self.headers["x-ml-sequence"])

    @property
    def ended(self) -> bool:
        return self.body["status"] in ENDED


class Backend:
    """Listens on a loopback port. `answer` maps what came in, and what came before, to a status or a misdeed."""

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
                if len(raw) < length:  # who sent it gave it up or was killed: nothing was received
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                number, answer = backend._take(self.path, headers, raw)
                with suppress(OSError):  # who asked is dead
                    backend._send(self, number, answer)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that was killed is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, headers: dict[str, str], raw: bytes) -> tuple[int, int]:
        """Write it down; its number and what to answer."""
        WATCH.callback(path, headers, raw)
        with self._came:
            new = Received(at=time.monotonic(), path=path, headers=headers, raw=raw, answered=HANG)
            answer = self._answer(new, list(self._received))
            self._received.append(replace(new, answered=answer))
            self._came.notify_all()
            return len(self._received) - 1, answer

    def _send(self, handler: BaseHTTPRequestHandler, number: int, answer: int) -> None:
        handler.close_connection = answer in (HANG, RESET, DRIP)
        if answer == RESET:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        elif answer == HANG:
            self._closing.wait(LONGER_THAN_PATIENCE_S)
        elif answer == DRIP:
            for byte in b"HTTP/1.0 200 OK\r\nX-Endless: " + b"a" * 100:
                handler.wfile.write(bytes([byte]))
                if self._closing.wait(DRIP_EVERY_S):
                    return
        else:
            if answer == SLOW:
                self._closing.wait(random.uniform(*SLOW_S))  # noqa: S311 - no secret
            handler.send_response(200 if answer == SLOW else answer)
            handler.send_header("content-length", "0")
            handler.end_headers()
            with self._came:
                acknowledged = answer in (200, SLOW)
                self._received[number] = replace(self._received[number], acknowledged=acknowledged)

    @property
    def received(self) -> list[Received]:
        """All that came, in order."""
        with self._came:
            return list(self._received)

    def of(self, job_id: str) -> list[Received]:
        """All that came about a job, in order."""
        with self._came:
            return [received for received in self._received if received.job_id == job_id]

    def wait(self, job_id: str, enough: Callable[[Sequence[Received]], bool], *, within_s: float) -> list[Received]:
        """Wait until what came about a job is `enough`; fail the test when it does not become so."""
        with self._came:
            done = self._came.wait_for(
                lambda: enough([got for got in self._received if got.job_id == job_id]), within_s
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
