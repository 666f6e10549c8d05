"""R1: who is let in by address. Requests come to the real middleware, with and without uvicorn's own in front."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serve_app.api.request_checks import Clients
from serve_app.settings import Auth

BACKEND = "10.20.0.0/16"
ADDRESSES = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["10.20.0.7", "127.0.0.1", "::1", "::ffff:10.20.0.7"])
)
LIES = st.lists(st.one_of(ADDRESSES, st.text(max_size=20)), max_size=4).map(", ".join)


def ask(
    peer: str,
    *forwarded: str,
    networks: tuple[str, ...] = (BACKEND,),
    proxies: tuple[str, ...] = (),
    path: str = "/docs",
    trusted: str | None = "",
    host: str = "ml.example",
    **auth: object,
) -> str:
    """Whom the app takes for the client, or the refusal's status. `trusted`: FORWARDED_ALLOW_IPS of uvicorn."""
    auth = {"hosts": ["ml.example"]} | auth

    async def app(scope, receive, send):
        await PlainTextResponse(scope["client"][0])(scope, receive, send)

    sent = []

    async def send(message):
        sent.append(message)

    whole = Clients(app, auth=Auth(networks=networks, proxies=proxies, **auth))
    headers = [(b"x-forwarded-for", line.encode("latin-1", "replace")) for line in forwarded]
    headers.append((b"host", host.encode()))
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (peer, 5)}
    asyncio.run(ProxyHeadersMiddleware(whole, "127.0.0.1,::1" if trusted is None else trusted)(scope, None, send))
    return sent[1]["body"].decode() if sent[0]["status"] == 200 else str(sent[0]["status"])


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        ("10.20.0.7", "10.20.0.7"),
        ("::ffff:10.20.0.7", "10.20.0.7"),
        ("10.21.0.7", "403"),
        ("8.8.8.8", "403"),
        ("127.0.0.1", "403"),
        ("::1", "403"),
        ("", "403"),
        ("testclient", "403"),
        ("fe80::1%eth0", "403"),
    ],
)
def test_r1_only_named_networks_may_ask(peer, answer):
    """R1: a client from elsewhere is refused, this machine too unless it is named, but for /health."""
    assert ask(peer) == answer
    assert ask(peer, path="/health") != "403"
    assert ask(peer, path="/health/") == answer


def test_r1_without_networks_everybody_may_ask():
    """R1: where no network is named the address does not matter; the bind is then this machine's, or keys are asked."""
    assert ask("8.8.8.8", networks=()) == "8.8.8.8"
    assert ask("nobody", networks=()) == "unknown"


@pytest.mark.parametrize("trusted", ["", None])
@given(lie=LIES, peer=st.one_of(st.ip_addresses().map(str), st.sampled_from(["127.0.0.1", "::1"])))
def test_r1_x_forwarded_for_lets_nobody_in(trusted, lie, peer):
    """R1: from a peer outside the networks no header helps, also where uvicorn believes this machine's."""
    if peer.startswith(("10.20.", "::ffff:10.20.")):
        return
    assert ask(peer, lie, trusted=trusted) == "403"
    assert ask(peer, "10.20.0.7", lie, trusted=trusted) == "403"
    assert ask(peer, lie, "10.20.0.7", proxies=("10.30.0.1/32",), trusted=trusted) == "403" or peer == "10.30.0.1"


@pytest.mark.parametrize("trusted", ["", None])
def test_r1_a_proxy_that_is_not_named_does_not_lend_its_rights(trusted):
    """R1: a reverse proxy on this machine that nobody named: its clients are not this machine."""
    here = (BACKEND, "127.0.0.0/8")
    assert ask("127.0.0.1", networks=here, trusted=trusted) == "127.0.0.1"
    assert ask("127.0.0.1", "8.8.8.8", networks=here, trusted=trusted) == "403"
    assert ask("127.0.0.1", "10.20.0.7", networks=here, trusted=trusted) == "127.0.0.1"
    assert ask("127.0.0.1", "unknown", networks=here, trusted=trusted) == "403"


@pytest.mark.parametrize("trusted", ["", None])
@pytest.mark.parametrize("proxy", ["127.0.0.1", "10.9.0.1"])
@pytest.mark.parametrize(
    ("forwarded", "answer"),
    [
        (["10.20.0.7"], "10.20.0.7"),
        (["10.20.0.7:4711"], "10.20.0.7"),
        (["8.8.8.8"], "403"),
        (["10.20.0.7, 8.8.8.8"], "403"),
        (["10.20.0.7", "8.8.8.8"], "403"),
        (["8.8.8.8, 10.20.0.7"], "10.20.0.7"),
        (["8.8.8.8, 10.20.0.7, 10.9.0.2"], "10.20.0.7"),
        (["10.20.0.7, 8.8.8.8, 10.9.0.2"], "403"),
        (["10.20.0.7, unknown"], "403"),
        (["[::ffff:10.20.0.7]:80"], "10.20.0.7"),
        ([""], "403"),
        ([], "403"),
    ],
)
def test_r1_a_named_proxy_is_believed_as_far_as_it_saw(proxy, forwarded, answer, trusted):
    """R1: of named proxies the last address that is none of theirs counts; what stands before it is hearsay."""
    named = (f"{proxy}/32", "10.9.0.2/32")
    assert ask(proxy, *forwarded, proxies=named, trusted=trusted) == answer
    assert ask("10.9.0.3", *forwarded, proxies=named, trusted=trusted) == "403"


def test_r1_rates_count_the_client_and_not_the_proxy():
    """R1: the next middlewares see the client that a named proxy tells, and the peer where none is named."""
    assert ask("10.9.0.1", "1.2.3.4", networks=(), proxies=("10.9.0.1/32",)) == "1.2.3.4"
    assert ask("10.9.0.1", "1.2.3.4", networks=()) == "10.9.0.1"
    assert ask("127.0.0.1", "1.2.3.4", networks=(), trusted=None) == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "auth", "peer", "answer"),
    [
        ("attacker.example", {}, "127.0.0.1", "403"),
        ("attacker.example:8000", {}, "::1", "403"),
        ("127.0.0.1.attacker.example", {}, "127.0.0.1", "403"),
        ("attacker.example", {}, "10.20.0.7", "10.20.0.7"),
        ("attacker.example", {"mode": "keys"}, "127.0.0.1", "127.0.0.1"),
        ("attacker.example", {"hosts": ["ml.example"]}, "10.20.0.7", "403"),
        ("attacker.example", {"hosts": ["ml.example"], "mode": "keys"}, "10.20.0.7", "403"),
        ("ML.example.:8000", {"hosts": ["ml.example"]}, "127.0.0.1", "127.0.0.1"),
        ("attacker.example", {"proxies": ["127.0.0.1/32"]}, "127.0.0.1", "127.0.0.1"),
        ("", {}, "127.0.0.1", "127.0.0.1"),
        *((host, {"hosts": hosts}, "127.0.0.1", "127.0.0.1")
          for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3") for hosts in ([], ["ml.example"])),
    ],
)  # fmt: skip
def test_r1_a_page_cannot_use_its_own_name_for_this_server(host, auth, peer, answer):
    """R1: DNS rebinding: without keys this machine's browsers use an address, localhost or a name of auth.hosts."""
    assert ask(peer, networks=(), **{"hosts": []} | auth, host=host) == answer
    assert ask(peer, networks=(), **{"hosts": []} | auth, host=host, path="/health") == peer
