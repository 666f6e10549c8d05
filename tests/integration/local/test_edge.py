"""What Serve's own HTTP proxy does with requests: the proxy guard is in it."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.support import servers

POST = "/api/upload-video/process-video"
SLOW = 250
HEAD = b"POST /x HTTP/1.1\r\nhost: a\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "request line": (b"GET /", b"a" * 65_536),
    "header value": (HEAD + b"a: ", b"a" * 65_536),
    "header value, slowly": (HEAD + b"a: ", b"a"),
    "headers": (HEAD, b"a: b\r\n" * 10_000),
    "chunk extension": (CHUNKED + b"1;", b"a" * 65_536),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "requests": (b"", b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n" * 1000),
    "chunks of a byte": (CHUNKED, b"1\r\na\r\n" * 10_000),
}
"""What one connection sends, again and again, and on another one when it is closed."""
HELD_UP_S, GROWN_BYTES = 0.2, 10_000_000


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


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ENDLESS)
def test_a6_one_connection_holds_up_nobody(server, name):
    """A6: whatever one connection sends, `/health` answers the others at once, and the proxy's memory stays."""
    [proxy] = server.processes("ray::ProxyActor")
    address = ("127.0.0.1", httpx.URL(server.url).port)
    begin, part = ENDLESS[name]
    over = threading.Event()
    sent = [0, 0]

    def send_on():
        while not over.is_set():
            with suppress(OSError), socket.create_connection(address, timeout=1) as line:
                sent[0] += 1
                line.sendall(begin)
                while not over.is_set():
                    sent[1] += line.send(part)
            over.wait(0.1)

    def took_s():
        began = time.monotonic()
        assert server.http.get("/health", timeout=30).status_code == 200
        return time.monotonic() - began

    alone_s = max(took_s() for _ in range(20))
    before = resident_bytes(proxy)
    sender = threading.Thread(target=send_on)
    sender.start()
    try:
        beside_s = []
        for _ in range(40):
            beside_s.append(took_s())
            time.sleep(0.05)
        grown = resident_bytes(proxy) - before
    finally:
        over.set()
        sender.join()
    print(f"{name}: {sent[1] / 1e6:.1f} MB on {sent[0]} connections; {grown / 1e6:+.1f} MB; longest /health")
    print(f"alone {alone_s * 1e3:.0f}, beside it {max(beside_s) * 1e3:.0f} ms, median {median(beside_s) * 1e3:.0f} ms")
    assert max(beside_s) < 5 * HELD_UP_S + alone_s
    assert grown < 2 * GROWN_BYTES
