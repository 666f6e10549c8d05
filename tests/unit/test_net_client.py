"""The HTTP client under the address rules, and callbacks through it."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.net import client as net_client
from deployments.net.client import Answer, CallbackClient, CheckedTransport, NetError, exchange
from deployments.net.policy import CallbackPolicy, NetPolicy
from tests.support.servers import Server, endless, hanging, head, resetting, serving, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.servers import Handler, Request

LOOPBACK = ("127.0.0.0/8",)
LOCAL = CallbackPolicy(networks=LOOPBACK, origins=("http://127.0.0.1:*",))


async def post(server: Server, *, policy: CallbackPolicy = LOCAL, body: bytes = b"{}", **limits: float) -> Answer:
    async with CallbackClient(policy) as client:
        return await client.post(server.url("/result"), body, {"webhook-id": "a"}, **limits)


def against(handler: Handler, **limits: float) -> Answer:
    async def main() -> Answer:
        async with serving(handler) as server:
            return await post(server, **limits)

    return asyncio.run(main())


def resolver(*answers: list[str]) -> Callable[[str, int], object]:
    """Answers in turn, the last one for ever."""
    left = list(answers)

    async def resolve(_: str, __: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


async def test_a_callback_arrives_as_it_was_given() -> None:
    """The exact bytes and headers arrive, with our user agent and nothing of the environment."""
    async with serving(status(204)) as server:
        answer = await post(server, body=b'{"a":  "\xed\x95\x9c"}')
        request = server.requests[0]
    assert answer == Answer(status=204, retry_after_s=None)
    assert (request.method, request.target, request.body) == ("POST", "/result", b'{"a":  "\xed\x95\x9c"}')
    assert request.headers["user-agent"] == "ML-Server/1.0"
    assert request.headers["webhook-id"] == "a"


@pytest.mark.parametrize("code", [200, 301, 307, 308, 400, 410, 429, 500, 503])
def test_every_status_is_an_answer(code: int) -> None:
    """A status is reported, never raised: whoever retries decides."""
    assert against(status(code)).status == code


@pytest.mark.parametrize(
    ("value", "expected"), [("120", 120.0), ("0", 0.0), ("soon", None), ("-5", None), ("1.5", None)]
)
def test_retry_after_in_seconds(value: str, expected: float | None) -> None:
    """`Retry-After` is read where it is a number of seconds."""
    assert against(status(503, Retry_After=value)).retry_after_s == expected


def test_retry_after_as_a_date() -> None:
    """`Retry-After` may be a date, too; one in the past means now."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    found = against(status(503, Retry_After=format_datetime(later, usegmt=True))).retry_after_s
    assert found == pytest.approx(100, abs=3)
    assert against(status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")).retry_after_s == 0.0


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_w8_redirects_are_not_followed(code: int) -> None:
    """W8: a redirect to the canary costs it no connection."""
    async with serving(status(200)) as canary, serving(status(code, Location=canary.url())) as server:
        assert (await post(server)).status == code
        assert canary.connections == 0


def test_w9_a_huge_answer_costs_little() -> None:
    """W9: an endless answer is dropped after 20 kB; memory stays under 1 MB."""
    tracemalloc.start()
    try:
        assert against(endless).status == 200
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


async def drip_head(_: Request, writer: asyncio.StreamWriter) -> None:
    """A status line, letter by letter."""
    for byte in b"HTTP/1.1 200 OK" + b" " * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("handler", [hanging, drip_head])
def test_w6_a_slow_receiver_is_cut(handler: Handler) -> None:
    """W6: the deadline holds for the whole try, also where each byte comes in time."""
    began = time.monotonic()
    with pytest.raises(NetError, match="timeout"):
        against(handler, deadline_s=0.3)
    assert time.monotonic() - began < 1.0


def test_an_answer_counts_although_its_body_never_ends() -> None:
    """A 2xx acknowledges, whatever comes after it: no duplicate is sent for a hanging body."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(202, Content_Length=10))
        await asyncio.Event().wait()

    assert against(handle, deadline_s=0.3).status == 202


async def test_a_reset_is_told_apart_from_an_absent_server() -> None:
    """A connection that breaks is `cut_off`, one that is refused `unreachable`."""
    async with serving(resetting()) as server:
        with pytest.raises(NetError, match="cut_off"):
            await post(server)
    with pytest.raises(NetError, match="unreachable"):
        await post(server)


async def test_callbacks_outside_the_list_are_not_sent() -> None:
    """An origin that is not on the list gets no connection."""
    async with serving(status(200)) as server:
        with pytest.raises(NetError, match="not_allowed"):
            await post(server, policy=CallbackPolicy(origins=("http://ecg-backend:8000",)))
        assert server.connections == 0


async def test_connections_are_kept_for_the_next_callback() -> None:
    """One connection serves many callbacks."""

    async def twice(_: Request, writer: asyncio.StreamWriter) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        writer.write(answer)
        await asyncio.sleep(0.1)
        writer.write(answer)

    async with serving(twice) as server, CallbackClient(LOCAL) as client:
        for _ in range(2):
            assert (await client.post(server.url(), b"{}", {})).status == 200
        assert server.connections == 1


@pytest.mark.parametrize(
    "private", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%lo"]
)
async def test_w10_a_name_that_leads_inside_is_refused(private: str) -> None:
    """W10: the resolved address is checked, not the name."""
    policy = CallbackPolicy(origins=("http://backend.example:8000",))
    async with CallbackClient(policy, resolve=resolver([private])) as client:
        with pytest.raises(NetError, match="not_allowed"):
            await client.post("http://backend.example:8000/x", b"", {})


async def test_w11_dns_rebinding_reaches_nothing() -> None:
    """W11: a name that answers an allowed address first and a forbidden one then: 0 hits in 100, and vice versa."""
    async with serving(status(200)) as canary:
        policy = CallbackPolicy(networks=("127.0.0.2/32",), origins=(f"http://rebind.example:{canary.port}",))
        allowed = 0
        for i in range(100):
            answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]]
            resolve = resolver(answers[i % 4], answers[(i + 1) % 4])
            async with CallbackClient(policy, resolve=resolve) as client:
                for _ in range(2):
                    with pytest.raises(NetError) as caught:
                        await client.post(f"http://rebind.example:{canary.port}/", b"", {})
                    allowed += caught.value.kind == "unreachable"
        assert canary.connections == 0
    assert allowed == 100  # it did connect, to where it may


async def test_the_next_address_is_tried() -> None:
    """Where a name has several addresses and one is dead, the next one is used."""
    async with serving(status(200)) as server:
        policy = CallbackPolicy(networks=LOOPBACK, origins=(f"http://backend.example:{server.port}",))
        resolve = resolver(["10.0.0.1", "127.0.0.9", "127.0.0.1"])
        async with CallbackClient(policy, resolve=resolve) as client:
            assert (await client.post(f"http://backend.example:{server.port}/", b"", {})).status == 200


async def test_a_hanging_resolver_is_cut() -> None:
    """The time to connect bounds the name's resolution, too."""

    async def never(_: str, __: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    policy = CallbackPolicy(origins=("http://backend.example",))
    async with CallbackClient(policy, resolve=never) as client:
        with pytest.raises(NetError, match="timeout"):
            await client.post("http://backend.example/", b"", {}, connect_s=0.1)


async def test_names_that_hang_keep_no_other_work_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """W4: look-ups have threads of their own, as many as there are, and of one name there is one."""
    over = threading.Event()
    asked: list[str] = []

    def hanging(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hanging)

    waiting = [asyncio.create_task(net_client.resolve(f"{n % 40}.example", 80)) for n in range(200)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0) for _ in range(20)))
    took_s = time.monotonic() - began
    for task in waiting[:100]:
        task.cancel()
    over.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert took_s < 2
    assert len(asked) == len(set(asked)) == 40
    assert sum(thread.name.startswith("dns") for thread in threading.enumerate()) <= 16


async def test_an_unknown_name_is_unreachable() -> None:
    """A name without an address is a network failure, not a crash."""

    async def unknown(_: str, __: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async with CallbackClient(CallbackPolicy(origins=("http://b.example",)), resolve=unknown) as client:
        with pytest.raises(NetError, match="unreachable"):
            await client.post("http://b.example/", b"", {})


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """W10: `trust_env=False`: a proxy in the environment sees nothing."""
    async with serving(status(200)) as proxy, serving(status(200)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        await post(server)
        assert (proxy.connections, server.connections) == (0, 1)


async def test_a_configured_proxy_is_used() -> None:
    """A proxy that the settings name gets the request, and it resolves the name."""
    async with serving(status(200)) as proxy:
        policy = CallbackPolicy(origins=("http://backend.example",), proxy=proxy.url(""))
        async with CallbackClient(policy, resolve=resolver([])) as client:
            assert (await client.post("http://backend.example/result", b"", {})).status == 200
        assert proxy.requests[0].target == "http://backend.example/result"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for `name`, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "cert.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file


async def test_tls_sees_the_name_and_the_socket_the_checked_address(tmp_path: Path) -> None:
    """The certificate is checked against the URL's name, SNI and Host carry it, the socket the checked address."""
    context, ca_file = certificate(tmp_path, "backend.example")
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with serving(status(200), tls=context) as server:
        origins = (f"https://backend.example:{server.port}", f"https://other.example:{server.port}")
        policy = CallbackPolicy(networks=LOOPBACK, origins=origins, ca_file=ca_file)
        async with CallbackClient(policy, resolve=resolver(["127.0.0.1"])) as client:
            assert (await client.post(f"{origins[0]}/x", b"", {})).status == 200
            with pytest.raises(NetError, match="unreachable"):
                await client.post(f"{origins[1]}/x", b"", {})
        assert server.requests[0].headers["host"] == f"backend.example:{server.port}"
    assert names == ["backend.example", "other.example"]


async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    """Without being named, a private certificate is not trusted."""
    context, _ = certificate(tmp_path, "backend.example")
    async with serving(status(200), tls=context) as server:
        policy = CallbackPolicy(networks=LOOPBACK, origins=(f"https://backend.example:{server.port}",))
        async with CallbackClient(policy, resolve=resolver(["127.0.0.1"])) as client:
            with pytest.raises(NetError, match="unreachable"):
                await client.post(f"https://backend.example:{server.port}/x", b"", {})


async def test_cancelling_a_post_closes_its_connection() -> None:
    """A try that is called off (the terminal callback overtakes progress) leaves at once."""
    async with serving(hanging) as server, CallbackClient(LOCAL) as client:
        task = asyncio.create_task(client.post(server.url(), b"{}", {}))
        await server.arrived.wait()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 0.5


async def test_the_http_libraries_log_no_urls(caplog: pytest.LogCaptureFixture) -> None:
    """M7: even with every logger at DEBUG, no line holds the URL's query."""
    caplog.set_level(logging.DEBUG)
    async with serving(status(302, Location="http://x/?X-Amz-Signature=s3cret")) as server:
        transport = CheckedTransport(NetPolicy(networks=LOOPBACK))
        request = httpx.Request("GET", server.url(query="X-Amz-Signature=s3cret"))
        async with exchange(transport, request, connect_s=1, stall_s=1) as response:
            assert response.status_code == 302
        await transport.aclose()
    assert "s3cret" not in caplog.text


async def test_w8_no_more_of_an_answer_is_read_than_the_limit() -> None:
    """W8: a receiver whose answer does not end costs its status line and a bounded number of bytes."""
    read = 0

    class Response:
        async def aiter_raw(self) -> AsyncIterator[bytes]:
            nonlocal read
            while read < 1_000_000:
                read += 1000
                yield b"x" * 1000

    response: Any = Response()
    await net_client._drain(response, 10_000)
    assert read == 10_000
