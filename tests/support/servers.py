"""HTTP servers on the loopback that can be made to lie: raw sockets, since no honest library would send this."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Handler: TypeAlias = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Server:
    """Where it listens, and what came in."""

    port: int
    scheme: str = "http"
    host: str = "127.0.0.1"
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/video.mp4", query: str = "") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}" + (f"?{query}" if query else "")


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, host: str = "127.0.0.1", tls: object = None) -> AsyncIterator[Server]:
    """Serve each connection's one request with `handler`; at the end all connections are dropped."""
    server = Server(port=0, host=host, scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            request = await _read_request(reader)
            server.requests.append(request)
            server.arrived.set()
            await handler(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    listening = await asyncio.start_server(connected, host, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Request(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def head(status: int, **headers: object) -> bytes:
    """A status line with headers; `_` in their names stands for `-`."""
    lines = [f"HTTP/1.1 {status} x", "Connection: close"]
    return "\r\n".join(lines + [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]).encode() + b"\r\n\r\n"


def status(code: int, **headers: object) -> Handler:
    """Answers `code` with nothing in it."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(code, Content_Length=0, **headers))
        await writer.drain()

    return handle


def whole(body: bytes, **headers: object) -> Handler:
    """Honest."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Length=len(body), **headers) + body)
        await writer.drain()

    return handle


def short(body: bytes, *, missing: int, **headers: object) -> Handler:
    """Promises `missing` bytes more than it sends."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Length=len(body) + missing, **headers) + body)
        await writer.drain()

    return handle


def in_turn(*handlers: Handler) -> Handler:
    """The first one for the first request, and so on."""
    left = iter(handlers)

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        await next(left)(request, writer)

    return handle


def promising(length: int) -> Handler:
    """Tells a length, sends one byte and waits."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Length=length) + b"x")
        await asyncio.Event().wait()

    return handle


async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
    """Never ends, at full speed, without a length."""
    writer.write(head(200, Transfer_Encoding="chunked"))
    while True:
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()


def dripping(every_s: float = 0.01) -> Handler:
    """A byte now and then, each within every read time-out."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, Content_Length=1_000_000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(every_s)

    return handle


async def hanging(_: Request, __: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing."""
    await asyncio.Event().wait()


def resetting(body: bytes = b"") -> Handler:
    """Sends a part, then a TCP reset."""

    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        if body:
            writer.write(head(200, Content_Length=2 * len(body)) + body)
            await writer.drain()
        reset(writer)

    return handle


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def cutting(server: Callable[[], Server], body: bytes, *, every: int, etags: Callable[[int], str]) -> Handler:
    """Honest about ranges, but drops the line after each `every` bytes. `etags(n)` is the n-th answer's ETag."""
    answers = 0

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        etag = etags(answers)
        answers += 1
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match and request.headers.get("if-range") == etag:
            start = int(match[1])
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            writer.write(head(206, Content_Length=len(body) - start, Content_Range=span, ETag=etag))
        else:
            start = 0
            writer.write(head(200, Content_Length=len(body), ETag=etag))
        part = body[start : start + every]
        server().sent_bytes += len(part)
        writer.write(part)
        await writer.drain()

    return handle
