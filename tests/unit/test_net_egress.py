"""W10, W11: downloads and callbacks through a network's own ways: an egress proxy, a private CA, names that lie."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from deployments.errors import DownloadError
from deployments.net.client import CallbackClient, NetError
from deployments.net.download import download
from deployments.net.policy import CallbackPolicy, DownloadLimits, VideoPolicy
from tests.support.servers import head, serving, status, whole
from tests.unit.test_net_client import certificate, resolver

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.servers import Request

BODY = b"a video"
LIMITS = DownloadLimits(deadline_s=10, connect_s=2, stall_s=2, max_tries=1, pause_s=0, disk_reserve_bytes=0)


async def test_w11_a_video_name_that_rebinds_reaches_nothing(tmp_path: Path) -> None:
    """W11: a video's name that answers public first and loopback then, in turn: 0 hits in 100 downloads."""
    async with serving(whole(BODY)) as canary:
        policy = VideoPolicy(schemes={"http"}, networks=("127.0.0.2/32",), ports="*")
        unreachable = 0
        for i in range(100):
            answers = [["127.0.0.2"], ["127.0.0.1"], ["::ffff:127.0.0.1", "127.0.0.1"], ["::1", "127.0.0.2"]]
            resolve = resolver(answers[i % 4], answers[(i + 1) % 4])
            url = f"http://rebind.example:{canary.port}/v.mp4"
            for _ in range(2):
                with pytest.raises(DownloadError) as caught:
                    await download(url, tmp_path / "v", policy=policy, limits=LIMITS, resolve=resolve)
                unreachable += "not allowed" not in str(caught.value)
        assert canary.connections == 0
    assert unreachable == 100  # it did connect, to where it may


@asynccontextmanager
async def connect_proxy(to: int) -> AsyncIterator[tuple[str, list[str]]]:
    """An egress proxy: whatever it is asked to connect to, it connects to `to`. Its URL and requests."""
    asked: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0])
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        for each in (writer, inner_writer):
            with suppress(ConnectionError):
                await each.wait_closed()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        try:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked
        finally:
            await asyncio.gather(*tasks)


async def proxied(to: Path, ca_file: Path | None, context: ssl.SSLContext) -> tuple[list[str], int]:
    """Fetch by https from `videos.internal` through a proxy; what proxy and server were asked."""
    async with serving(whole(BODY), tls=context) as server, connect_proxy(server.port) as (proxy, asked):
        policy = VideoPolicy(hosts=("videos.internal",), proxy=proxy, ca_file=ca_file)
        await download("https://videos.internal/v.mp4?s=1", to, policy=policy, limits=LIMITS)
        return asked, len(server.requests)


def test_w10_a_download_goes_through_the_named_proxy_and_trusts_the_named_ca(tmp_path: Path) -> None:
    """W10: both are explicit settings; the proxy is told host and port and sees no presigned query."""
    context, ca_file = certificate(tmp_path, "videos.internal")
    assert asyncio.run(proxied(tmp_path / "v", ca_file, context)) == (["CONNECT videos.internal:443 HTTP/1.1"], 1)
    assert (tmp_path / "v").read_bytes() == BODY


def test_w10_through_a_proxy_a_private_ca_still_has_to_be_named(tmp_path: Path) -> None:
    """W10: a proxy that breaks TLS up is not trusted because it is a proxy."""
    context, _ = certificate(tmp_path, "videos.internal")
    with pytest.raises(DownloadError):
        asyncio.run(proxied(tmp_path / "v", None, context))


async def test_w10_a_proxy_is_no_way_to_what_is_not_allowed(tmp_path: Path) -> None:
    """W10: hosts, origins and literal addresses are judged before a proxy is asked: it gets no connection."""
    async with serving(status(200)) as proxy:
        videos = VideoPolicy(hosts=("videos.internal", "*.s3.amazonaws.com"), proxy=proxy.url(""))
        for url in (
            "https://127.0.0.1/v",
            "https://169.254.169.254/v",
            "https://evil.example/v",
            "http://videos.internal/v",
        ):
            with pytest.raises(DownloadError, match="not allowed"):
                await download(url, tmp_path / "v", policy=videos, limits=LIMITS)
        async with CallbackClient(CallbackPolicy(origins=("http://ecg-backend:8000",), proxy=proxy.url(""))) as client:
            for url in ("http://ecg-backend:8001/x", "http://10.0.0.1:8000/x", "https://ecg-backend:8000/x"):
                with pytest.raises(NetError, match="not_allowed"):
                    await client.post(url, b"", {})
        assert proxy.connections == 0


async def test_w10_a_redirect_through_a_proxy_is_judged_too(tmp_path: Path) -> None:
    """W10: a hop to the metadata address is refused although the proxy would fetch it."""

    async def redirect(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(302, Location="http://169.254.169.254/latest/meta-data/", Content_Length=0))

    async with serving(redirect) as proxy:
        policy = VideoPolicy(schemes={"http"}, proxy=proxy.url(""))
        with pytest.raises(DownloadError, match="not allowed"):
            await download("http://videos.example/v", tmp_path / "v", policy=policy, limits=LIMITS)
        assert [request.target for request in proxy.requests] == ["http://videos.example/v"]
