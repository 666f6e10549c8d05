"""A6: no bytes on one connection cost more than their limits, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from itertools import count, repeat

import httpx
import pytest
import uvicorn

from serve_app.api import bounded_http
from serve_app.api.proxy_guard import ProxyGuard
from tests.support.live_server import serving

MEGABYTE = 1_000_000
HEAD = b"POST /x HTTP/1.1\r\nhost: a\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "request line": (b"GET /", repeat(b"a" * 1000), 431),
    "method": (b"", repeat(b"A" * 1000), 400),
    "header name": (HEAD, repeat(b"a" * 1000), 431),
    "header value": (HEAD + b"a: ", repeat(b"a" * 1000), 431),
    "folded header": (HEAD + b"a: b", repeat(b"\r\n c"), (400, 431)),
    "headers": (HEAD, repeat(b"a: b\r\n" * 50), 431),
    "empty lines": (b"", repeat(b"\r\n" * 500), 431),
    "chunk extension": (CHUNKED + b"1;", repeat(b"a" * 1000), 431),
    "chunk size": (CHUNKED, repeat(b"0" * 1000), (400, 431)),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\n", repeat(b"a: b\r\n" * 100), 431),
    "trailer": (CHUNKED + b"1\r\na\r\n0\r\na: ", repeat(b"a" * 1000), 431),
    "garbage": (b"\x16\x03\x01", repeat(b"\x00\xff" * 500), 400),
    "chunks with long extensions": (CHUNKED, (b"1;%s\r\na\r\n" % (b"b" * 500) for _ in count()), 431),
    "body": (CHUNKED, (b"3e8\r\n%s\r\n" % (b"a" * 1000) for _ in count()), 413),
}


class App:
    """Serve's proxy: answers with the headers that reached it."""

    def __init__(self):
        self.headers = []
        self.release = threading.Event()
        self.release.set()

    async def __call__(self, scope, receive, send):
        self.headers.append(scope["headers"])
        body = (await receive())["body"]
        await asyncio.to_thread(self.release.wait)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app():
    return App()


@pytest.fixture
def url(app, monkeypatch):
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", None)
    bounded_http.install()
    guard = ProxyGuard(app, max_bytes=65_536)

    with serving(guard, lifespan="off") as url:
        yield url


@contextmanager
def connected(url):
    host, port = re.fullmatch(r"http://(.*):(\d+)", url).groups()
    with socket.create_connection((host, int(port)), timeout=10) as line:
        yield line


def answer_of(line):
    """The status and the contract's code of what comes until the server closes the connection."""
    got = b""
    with suppress(ConnectionResetError):
        while more := line.recv(65_536):
            got += more
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 ") == 1, got
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("name", ENDLESS)
def test_a6_whatever_never_ends_is_refused(url, name):
    """A6: each endless part is refused in the contract's form, and its connection is closed."""
    begin, parts, expected = ENDLESS[name]
    with connected(url) as line:
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(begin)
            for part in parts:
                line.sendall(part)
                if (sent := sent + len(part)) > 30 * MEGABYTE:
                    break
        assert sent < 30 * MEGABYTE
    with connected(url) as line:
        line.sendall(begin)
        for _, part in zip(range(140), parts, strict=False):
            line.sendall(part)
        status, code = answer_of(line)
    assert status in (expected if isinstance(expected, tuple) else (expected,))
    assert code == {400: "INVALID_REQUEST", 413: "REQUEST_TOO_LARGE", 431: "HEADERS_TOO_LARGE"}[status]


def test_a6_a_head_byte_by_byte_is_parsed_once(url, app):
    """A6: a large head in single bytes is taken as in one piece, and costs the others nothing that they notice."""
    head = HEAD + b"a: " + b"b" * 8000 + b"\r\ncontent-length: 2\r\n\r\n"
    with connected(url) as line, httpx.Client(base_url=url, trust_env=False) as other:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        longest_s = 0.0
        for at, byte in enumerate(head):
            line.send(bytes([byte]))
            if at % 1000 == 0:
                began = time.monotonic()
                other.get("/health")
                longest_s = max(longest_s, time.monotonic() - began)
        line.sendall(b"hi")
        assert line.recv(1000).endswith(b"hi")
    assert longest_s < 2


def test_a6_the_largest_allowed_head_and_framing_pass(url):
    """A6: what is just under the limits is answered, again and again on one connection."""
    with connected(url) as line:
        for _ in range(3):
            line.sendall(HEAD + b"a: " + b"b" * (bounded_http.HEAD_BYTES - 2 * bounded_http.SLICE_BYTES))
            line.sendall(b"\r\ncontent-length: 2\r\n\r\nhi")
            assert line.recv(1000).endswith(b"hi")
            line.sendall(CHUNKED + b"1\r\na\r\n" * 3000 + b"0\r\na: b\r\n\r\n")
            got = b""
            while not got.endswith(b"a" * 3000):
                got += line.recv(65_536)


def test_a6_a_slow_head_times_out(url, monkeypatch):
    """A6: 408 for a head that does not end; a connection on which nothing came is just closed."""
    monkeypatch.setattr(bounded_http, "HEAD_S", 0.5)
    with connected(url) as line:
        line.sendall(HEAD)
        assert answer_of(line) == (408, "REQUEST_TIMEOUT")
    with connected(url) as line:
        assert line.recv(100) == b""
    with connected(url) as line:  # the second request of a connection, too
        line.sendall(HEAD + b"content-length: 2\r\n\r\nhi")
        assert line.recv(1000).endswith(b"hi")
        line.sendall(HEAD)
        assert answer_of(line) == (408, "REQUEST_TIMEOUT")


def test_a6_an_answer_that_takes_long_is_not_cut(url, app, monkeypatch):
    """A6: the timeout is the head's: while an answer is computed, a next head that has begun may wait."""
    monkeypatch.setattr(bounded_http, "HEAD_S", 0.5)
    app.release.clear()
    with connected(url) as line:
        line.sendall(HEAD + b"content-length: 2\r\n\r\nhi")
        line.sendall(HEAD)
        time.sleep(1.5)
        app.release.set()
        assert line.recv(1000).endswith(b"hi")
        assert answer_of(line) == (408, "REQUEST_TIMEOUT")


def test_a6_requests_before_the_first_answer_are_bounded(url, app):
    """A6: a connection cannot fill the memory with requests that wait for their turn."""
    app.release.clear()
    with connected(url) as line:
        line.sendall((HEAD + b"content-length: 0\r\n\r\n") * (bounded_http.PIPELINED * 20))
        line.settimeout(5)
        with suppress(ConnectionResetError):
            assert line.recv(100) == b""
    app.release.set()
    assert len(app.headers) <= 2


def test_a1_trailers_are_no_headers(url, app):
    """A1: what comes after the body does not reach the app as a header."""
    with connected(url) as line:
        line.sendall(CHUNKED + b"1\r\na\r\n0\r\nauthorization: Bearer k\r\nx-forwarded-for: 1.2.3.4\r\n\r\n")
        assert line.recv(1000).endswith(b"a")
    assert {name for name, _ in app.headers[0]} <= {b"host", b"x-proxy-guard"}
