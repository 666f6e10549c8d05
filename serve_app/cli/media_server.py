"""Serves a few local files over HTTP on loopback while a job needs them, in place of S3.

Only the named files are served, read-only, under a random path. Knows nothing of jobs.
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

MAX_CONNECTIONS = 16
CONNECTION_TIMEOUT_S = 60
SHUTDOWN_CHECK_S = 0.05
BLOCK_BYTES = 256 * 1024

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class MediaServer:
    """Serves the files while the context is open. Raises ValueError for two files of one name."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files: dict[str, Path] = {}
        for path in files:
            if path.name in self._files:
                raise ValueError(f"two files are called {path.name}")
            self._files[path.name] = path
        self._secret = secrets.token_urlsafe(24)
        self._server = _Server(self._find)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(SHUTDOWN_CHECK_S,), name="media-server", daemon=True
        )

    @property
    def base_url(self) -> str:
        """Return the URL of the files' folder, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._secret}"

    def url(self, path: Path) -> str:
        """Return the URL of `path`."""
        return f"{self.base_url}/{quote(path.name)}"

    def _find(self, url_path: str) -> Path | None:
        folder, _, name = url_path.removeprefix("/").partition("/")
        if not secrets.compare_digest(folder.encode(), self._secret.encode()):
            return None
        return self._files.get(unquote(name))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, find: Callable[[str], Path | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.find = find
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the connection, or close it if there are too many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the slot when the connection ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, *_arguments: object) -> None:
        """Ignore errors: they are clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_TIMEOUT_S
    server_version = "ml-server-media"
    sys_version = ""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_arguments: object) -> None:
        """Stay silent: the terminal belongs to the progress bar."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.server.find(urlsplit(self.path).path)
        try:
            file = path.open("rb") if path else None
        except OSError:
            file = None
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            span = self._head(file)
            if span is not None and with_body:
                self._body(file, *span)

    def _head(self, file: BinaryIO) -> tuple[int, int] | None:
        """Send the headers; return the first and last byte to send, or None if the requested range does not exist."""
        stat = os.fstat(file.fileno())
        etag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
        same_file = self.headers.get("If-Range", etag) == etag
        span = byte_range(self.headers.get("Range") if same_file else None, stat.st_size)
        if span is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{stat.st_size}")
            self.send_header("Content-Length", "0")
        elif span == (0, stat.st_size - 1):
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(stat.st_size))
        else:
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Range", f"bytes {span[0]}-{span[1]}/{stat.st_size}")
            self.send_header("Content-Length", str(span[1] - span[0] + 1))
        self.send_header("Content-Type", mimetypes.guess_type(str(file.name))[0] or "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.end_headers()
        return span

    def _body(self, file: BinaryIO, first: int, last: int) -> None:
        file.seek(first)
        left = last - first + 1
        with suppress(ConnectionError, TimeoutError):
            while left and (block := file.read(min(BLOCK_BYTES, left))):
                self.wfile.write(block)
                left -= len(block)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a `Range` header; of the whole file if it is absent or not understood.

    None if the range is outside the file. For an empty file (0, -1): zero bytes.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return 0, size - 1
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size - 1) if int(last) and size else None
    end = min(int(last), size - 1) if last else size - 1
    return (int(first), end) if int(first) <= end else None
