"""Uvicorn's HTTP/1.1 protocol with bounds on what surrounds a body: request line, headers, chunk framing, trailers.

Serve starts uvicorn with httptools, which collects a header's value without bound, each piece by copying all before it:
one connection that sends an endless header holds up all others before any middleware is called. Here the bytes are
given to the parser in slices and counted, so that no more than a slice beyond a limit is parsed.
`proxy_guard.middlewares` installs it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.metrics import OTHER
from serve_app.api import errors
from serve_app.api.errors import messages
from serve_app.observability import metrics

if TYPE_CHECKING:
    import asyncio

SLICE_BYTES = 4096
HEAD_BYTES = 32_768
"""Limit of a request's line and headers. Browsers and proxies stay under 8 kB."""
FRAMING_BYTES = 32_768
"""Limit of what a chunked body may have beside its content: sizes, extensions, trailers."""
HEADERS = 100
"""Limit of the number of headers."""
PIPELINED = 16
"""Limit of requests that wait for the answer to an earlier one of their connection."""
HEAD_S = 10.0
"""Timeout of receiving the head of a request."""
LINGER_S, LINGER_BYTES = 2.0, 1_000_000
"""Bounds of reading and discarding what follows a refused head: many clients read only after sending all."""


def install() -> None:
    """Make it the protocol of every uvicorn server that this process starts and that does not name another one."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Refusals (400, 408, 431) have the contract's form and close it."""

    _in_head = False
    _in_body = False
    _head_bytes = 0
    _framing_bytes = 0
    _received_bytes = 0
    """All bytes of the connection, to tell a slow head from a connection that was opened for later."""
    _refused = False
    _discarded_bytes = 0
    _refusal: errors.ApiError | None = None
    """What a callback of the parser refuses the request with; the parser then stops."""
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first head."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse slice by slice, and stop at a limit."""
        self._received_bytes += len(data)
        for start in range(0, len(data), SLICE_BYTES):
            if self._refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
                break
            self._parse(data[start : start + SLICE_BYTES])
        if self._refused:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > LINGER_BYTES:
                self.transport.close()

    def _parse(self, data: bytes) -> None:
        if self._in_body:
            self._framing_bytes += len(data)
        else:
            self._head_bytes += len(data)
            self._start_head_timer()  # also before a head begins: empty lines may precede it
        super().data_received(data)
        if self._in_head:
            self._start_head_timer()
        if self._head_bytes > HEAD_BYTES or self._framing_bytes > FRAMING_BYTES:
            self._refuse(errors.HeadersTooLargeError())
        elif len(self.pipeline) > PIPELINED:
            self._refuse(errors.InvalidRequestError("Too many requests before the first answer"))

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header to the request; trailers are dropped, since they come after the headers were read."""
        if self._in_body:
            return
        if len(self.headers) >= HEADERS:
            self._refusal = errors.HeadersTooLargeError()
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the body."""
        self._stop_head_timer()
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the content, which is not framing."""
        self._framing_bytes = max(0, self._framing_bytes - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body: what follows is the head of another request."""
        self._in_body, self._framing_bytes = False, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own text
        """Refuse what the parser does not accept."""
        self._refuse(self._refusal or errors.InvalidRequestError("The request is not valid HTTP/1.1"))

    def _start_head_timer(self) -> None:
        if self._head_timer is None and not self._refused:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._answer_is_open():
            self._start_head_timer()
        elif self._received_bytes:
            self._refuse(errors.RequestTimeoutError())
        else:
            self.transport.close()

    def _answer_is_open(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, refusal: errors.ApiError) -> None:
        """Answer, unless an earlier request's answer is open, and close the connection once the client has read."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._stop_head_timer()
        if self._answer_is_open():
            if not self._in_body or self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        metrics.ANSWERS.inc(route=OTHER, status=str(refusal.status))
        self.transport.write(_written(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


def _written(refusal: errors.ApiError) -> bytes:
    start, body = messages(refusal, headers=[(b"connection", b"close")])
    line = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n".encode()
    headers = b"".join(b"%s: %s\r\n" % header for header in start["headers"])
    return b"%s%s\r\n%s" % (line, headers, body["body"])
