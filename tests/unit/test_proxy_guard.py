from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import suppress

import httpx
import pytest

from serve_app.api import proxy_guard
from serve_app.api.proxy_guard import ProxyGuard
from tests.support.live_server import serving

LIMIT = 1000
PLACE = "/api/upload-video/process-video"


class Proxy:
    """Serve's proxy as far as its answers go: what it is told to do, and what reached it."""

    def __init__(self) -> None:
        self.scopes = []
        self.bodies = []
        self.answer = (200, b"application/json", b"{}")
        self.headers = []
        self.failure: Exception | None = None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        if self.failure:
            raise self.failure
        if self.answer is None:
            return
        status, kind, content = self.answer
        headers = [(b"content-type", kind), (b"x-request-id", b"r-1"), *self.headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def proxy():
    return Proxy()


@pytest.fixture
def url(proxy):
    guard = ProxyGuard(proxy, max_bytes=LIMIT)

    async def without_lifespan(scope, receive, send):
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        else:
            await guard(scope, receive, send)

    with serving(without_lifespan) as url:
        yield url


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        yield client


def assert_refused(answer, status, code):
    content = answer.json()
    assert (answer.status_code, content["error"]["code"]) == (status, code)
    assert set(content) == {"error", "message"}
    assert set(content["error"]) == {"code", "message", "job_id"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return content["message"]


def raw(url, *parts: bytes) -> bytes:
    """What comes back on a connection of our own, until the server closes it."""
    host, port = re.fullmatch(r"http://(.*):(\d+)", url).groups()
    with socket.create_connection((host, int(port)), timeout=10) as line:
        for part in parts:
            line.sendall(part)
        got = b""
        while more := line.recv(65536):
            got += more
        return got


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "NOT_FOUND"),
        (408, "REQUEST_TIMEOUT"),
        (429, "RATE_LIMITED"),
        (500, "INTERNAL_ERROR"),
        (503, "SERVICE_UNAVAILABLE"),
    ],
)
def test_a0_what_the_proxy_answers_itself_has_the_contract_s_form(proxy, http, status, code):
    """A0: Serve's own text/plain answers get the contract's body, and none of Serve's words."""
    proxy.answer = (status, b"text/plain; charset=utf-8", b"Request f7 timed out; ping http://.../-/routes")
    answer = http.get("/x")
    assert "f7" not in assert_refused(answer, status, code)
    assert answer.headers["x-request-id"] == "r-1"
    assert ("retry-after" in answer.headers) == (status in {429, 503})


def test_a0_a_wait_that_serve_asks_for_stays(proxy, http):
    """A0: Serve's own Retry-After is passed on, once."""
    proxy.answer, proxy.headers = (503, b"text/plain", b"busy"), [(b"retry-after", b"17")]
    assert http.get("/x").headers.get_list("retry-after") == ["17"]


@pytest.mark.parametrize("answer", [(200, b"text/plain", b"success"), (409, b"application/json", b'{"a": 1}')])
def test_a0_what_is_no_error_of_the_proxy_s_passes(proxy, http, answer):
    """A0: answers of the graph, and the proxy's health, stay as they are."""
    proxy.answer = answer
    got = http.get("/-/healthz")
    assert (got.status_code, got.content) == (answer[0], answer[2])


def test_a0_no_answer_and_a_crash_are_a_500(proxy, http):
    """A0: Serve ends without an answer when a replica dies over a request: 500 in the contract's form."""
    proxy.answer = None
    assert_refused(http.get("/x"), 500, "INTERNAL_ERROR")
    proxy.failure = RuntimeError("/secret/path")
    assert "secret" not in assert_refused(http.get("/x"), 500, "INTERNAL_ERROR")


def test_a0_serve_s_own_routes_and_headers_are_out_of_reach(proxy, http):
    """A0: nobody lists the apps, and no client's header changes a deadline, a replica or a log line."""
    assert_refused(http.get("/-/routes"), 404, "NOT_FOUND")
    assert proxy.scopes == []
    odd = {"x-request-timeout-seconds": "-1", "x-session-id": "a", "serve_multiplexed_model_id": "m"}
    http.get("/x", headers={**odd, "x-request-disconnect-disabled": "?1", "x-request-id": "a\tb", "x-b": b"\xff"})
    http.get("/x", headers={"x-request-id": "a-7", "authorization": "Bearer k"})
    names = [{name for name, _ in scope["headers"]} for scope in proxy.scopes]
    usual = {b"host", b"accept", b"user-agent", proxy_guard.MARK}
    assert names == [usual, usual | {b"authorization", b"x-request-id"}]


def test_a0_a_websocket_is_refused():
    """A0: no WebSocket reaches the graph; where the server can, it gets the contract's body."""

    async def sent(extensions):
        got = []

        async def send(message):
            got.append(message)

        scope = {"type": "websocket", "path": "/x", "headers": [], "extensions": extensions}
        await ProxyGuard(Proxy(), max_bytes=LIMIT)(scope, None, send)
        return got

    start, body = asyncio.run(sent({"websocket.http.response": {}}))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert json.loads(body["body"])["error"]["code"] == "NOT_FOUND"
    assert asyncio.run(sent({})) == [{"type": "websocket.close"}]


def test_a1_a_small_body_arrives_whole(proxy, http):
    """A1: up to the limit, with a length and in chunks."""
    assert http.post(PLACE, content=b"x" * LIMIT).status_code == 200
    assert http.post(PLACE, content=(b"y" * 100 for _ in range(10))).status_code == 200
    assert [body[:1] * len(body) for body in proxy.bodies] == [b"x" * LIMIT, b"y" * LIMIT]


def test_a1_a_large_body_is_refused_by_its_length(proxy, url, monkeypatch):
    """A1: 413 before any of it was sent, also to a client that waits for 100 Continue, and the connection ends."""
    monkeypatch.setattr(proxy_guard, "LINGER_S", 0.1)
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 400000000\r\nexpect: 100-continue\r\n\r\n"
    got = raw(url, head)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"REQUEST_TOO_LARGE" in got
    assert b"connection: close" in got
    assert proxy.scopes == []


def test_a1_a_large_body_in_chunks_is_counted(proxy, http):
    """A1: 413 as soon as the count is over the limit; a client that writes on gets to see it."""
    assert_refused(http.post(PLACE, content=(b"y" * 100 for _ in range(5000))), 413, "REQUEST_TOO_LARGE")
    assert proxy.scopes == []


def test_a1_a_body_without_end_is_cut(proxy, url):
    """A1: whoever writes on after the 413 is read for a bounded time and amount, then the connection is closed."""
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    host, port = re.fullmatch(r"http://(.*):(\d+)", url).groups()
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(head)
        sent = 0
        with suppress(OSError):
            while sent < 1 << 30:
                line.sendall(chunk)
                sent += len(chunk)
        assert sent < 64 << 20  # the limits, and what the kernel's buffers hold


def test_a6_a_slow_sender_takes_no_place_in_the_graph(proxy, url, monkeypatch):
    """A6: nothing is passed on before the body is whole; one that does not come in time gets 408."""
    monkeypatch.setattr(proxy_guard, "BODY_S", 0.2)
    monkeypatch.setattr(proxy_guard, "LINGER_S", 0.1)
    got = raw(url, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n", b"x")
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"REQUEST_TIMEOUT" in got
    assert proxy.scopes == []


def test_answers_are_counted(proxy, http, url, counted, monkeypatch):
    """By route and status as the client got it; only a request that came whole is timed, not the client's slowness."""
    monkeypatch.setattr(proxy_guard, "BODY_S", 0.1)
    monkeypatch.setattr(proxy_guard, "LINGER_S", 0.1)
    http.post(PLACE, content=b"{}")
    assert counted.total("answers", route="process-video", status="200") == 1
    [answered_s] = counted.values("answer_seconds", route="process-video")
    assert 0 < answered_s < 1
    proxy.answer = (503, b"text/plain", b"no")
    http.get("/health")
    assert counted.total("answers", route="health", status="503") == 1
    proxy.answer = None
    http.get("/api/upload-video/status/a?X-Amz-Signature=1")
    assert counted.total("answers", route="status", status="500") == 1
    assert counted.total("answers") == len(counted.values("answer_seconds")) == 3
    raw(url, b"POST /health HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n", b"x")
    http.get("/-/routes")
    assert counted.total("answers", route="health", status="408") == 1
    assert counted.total("answers", route="other", status="404") == 1
    assert len(counted.values("answer_seconds")) == 3


def test_a1_a_client_that_leaves_is_forgotten(proxy, url):
    """A1: half a body and a reset: nothing reaches the graph, and the next request is served."""
    host, port = re.fullmatch(r"http://(.*):(\d+)", url).groups()
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nx")
    assert httpx.get(url, trust_env=False).status_code == 200
    assert len(proxy.scopes) == 1


def test_a1_the_limit_comes_from_the_environment(monkeypatch):
    """A1: the proxy knows no config; 64 kB where nothing is said."""
    monkeypatch.delenv(proxy_guard.MAX_BYTES_VARIABLE, raising=False)
    [usual] = proxy_guard.middlewares()
    monkeypatch.setenv(proxy_guard.MAX_BYTES_VARIABLE, "7")
    [other] = proxy_guard.middlewares()
    assert (usual.kwargs, other.kwargs) == ({"max_bytes": 65_536}, {"max_bytes": 7})
