"""A backend that misbehaves by a seed: processes and answers, processes and resets, fails, hangs, drips, or is slow.

Writes down every POST that it received whole, whatever it answered.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.chaos.history import Got
from tests.support.leaks import WATCH

HONEST = {"ok": 1.0}
MOODS = {
    "usual": {"ok": 0.9, "slow": 0.03, "500": 0.03, "reset": 0.03, "hang": 0.005, "drip": 0.005},
    "brisk": {"ok": 0.85, "slow": 0.05, "500": 0.05, "reset": 0.05},
    "resets": {"ok": 0.3, "reset": 0.7},
    "errors": {"ok": 0.3, "500": 0.7},
    "slow": {"slow": 1.0},
}
"""What it does to a POST, by how often. `usual` and `brisk` are for all the time, the others for seconds."""
SLOW_S = (0.5, 3.0)
LONGER_THAN_PATIENCE_S = 25.0
DRIP_EVERY_S = 0.5


class Unreliable:
    """Listens on a loopback port; `mood` may be changed at any time."""

    def __init__(self, seed: int) -> None:
        self.mood = HONEST
        self.did: dict[str, int] = {}
        self._chance = random.Random(seed)
        self._got: list[Got] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                raw = self.rfile.read(length)
                if len(raw) < length:  # who sent it was killed in the middle: nothing was received
                    return
                WATCH.callback(self.path, dict(self.headers), raw)
                number, what = backend._take(self.headers, raw)
                with suppress(OSError):  # who asked is dead
                    backend._answer(self, what)
                    if what in {"ok", "slow"}:
                        backend._acknowledged(number)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that was killed is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
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

    @property
    def got(self) -> list[Got]:
        """All that came, in order."""
        with self._lock:
            return list(self._got)

    def _take(self, headers: Any, raw: bytes) -> tuple[int, str]:
        with self._lock:
            (what,) = self._chance.choices(list(self.mood), list(self.mood.values()))
            self.did[what] = self.did.get(what, 0) + 1
            self._got.append(
                Got(
                    at=time.monotonic(),
                    message_id=headers["webhook-id"],
                    sequence=int(headers["x-ml-sequence"]),
                    raw=raw,
                    acknowledged=False,
                )
            )
            return len(self._got) - 1, what

    def _acknowledged(self, number: int) -> None:
        with self._lock:
            self._got[number] = replace(self._got[number], acknowledged=True)

    def _answer(self, handler: BaseHTTPRequestHandler, what: str) -> None:
        handler.close_connection = True
        if what == "reset":
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
        elif what == "hang":
            self._closing.wait(LONGER_THAN_PATIENCE_S)
        elif what == "drip":
            ends = time.monotonic() + LONGER_THAN_PATIENCE_S
            for byte in b"HTTP/1.0 200 OK\r\nX-Endless: " + b"a" * 100:
                handler.wfile.write(bytes([byte]))
                if self._closing.wait(DRIP_EVERY_S) or time.monotonic() > ends:
                    return
        else:
            if what == "slow":
                self._closing.wait(self._chance.uniform(*SLOW_S))
            handler.send_response(500 if what == "500" else 200)
            handler.send_header("content-length", "0")
            handler.end_headers()
