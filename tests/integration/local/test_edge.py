"""What Serve's own HTTP proxy does with requests: the proxy guard is in it."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from tests.support import servers

POST = "/api/upload-video/process-video"
SLOW = 250


def test_a1_the_proxy_counts_bodies_without_a_length(server):
    """A1: a body over 64 kB in chunks is refused in the proxy itself, which then closes the connection."""
    answer = server.http.post(POST, content=(b"x" * 10_000 for _ in range(20)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
    assert answer.headers["connection"] == "close"  # says the proxy guard, and not the graph


def test_a0_the_proxy_s_own_answers_have_the_contract_s_form(server):
    """A0: the list of apps is nobody's business; the proxy's health says no more than that."""
    routes = server.http.get("/-/routes")
    assert (routes.status_code, routes.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert server.http.get("/-/healthz").text == "success"
    late = server.http.get("/health", headers={"x-request-timeout-seconds": "0.000001"})
    assert late.status_code == 200  # the header is for Serve's own parts: a client's does not get in


@pytest.mark.full
def test_a6_slow_senders_hold_up_nobody(server, sources):
    """A6: more clients than the ingress has places send half a request: others are answered, and they get 408."""
    half = f"POST {POST} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    with ExitStack() as stack:
        address = ("127.0.0.1", httpx.URL(server.url).port)
        lines = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(SLOW)]
        for line in lines:
            line.sendall(half.encode())
        took_s = []
        for _ in range(10):
            began = time.monotonic()
            server.start(sources.serve(servers.status(404)))
            took_s.append(time.monotonic() - began)
        print(f"beside {SLOW} slow senders a POST took {max(took_s):.3f} s at most")
        assert max(took_s) < 5
        assert {line.recv(100)[:13] for line in lines} == {b"HTTP/1.1 408 "}
