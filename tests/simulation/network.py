"""The backends that get the callbacks, behind a network below httpcore: real HTTP bytes, virtual time.

What they see and how they answered is what the checker judges by.
"""

from __future__ import annotations

import asyncio
import json
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpcore

from serve_app.orchestration.job_actor import MANAGER_NAME
from tests.simulation.loop import current
from tests.simulation.virtual_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.simulation.loop import Process

PORT = 8000
ENDLESS_CHUNK = b"x" * 4000
ENDLESS_EVERY_S = 0.2
KEEP_ALIVE_S = 5.0
"""After which a backend closes a connection that is not used, as uvicorn does."""
NEVER = 1e9


@dataclass(slots=True, kw_only=True)
class Received:
    """A callback as its backend saw it."""

    at: float
    """When its first byte left the server: the order of sending."""
    job_id: str
    message_id: str
    sequence: int
    body: dict[str, Any]
    raw: bytes
    receiver: str
    sender: Process
    status: int | None = None
    """What was answered, None while nothing was."""
    answered_at: float = NEVER
    """When the whole head of the answer had reached the sender."""
    closed_at: float = NEVER
    read: int = 0
    """Bytes of the answer that the sender took."""

    @property
    def ended(self) -> bool:
        return self.body["status"] in {"completed", "failed"}

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(slots=True, kw_only=True)
class Manner:
    """How a backend behaves while it lasts."""

    name: str = "well"
    connect_s: float | None = 0.0
    """None: no connection is ever made; a negative number: it is refused."""
    answer_s: float = 0.0
    """Beside the network's own time; `NEVER`: it hangs."""
    status: int | None = 200
    """None: the connection is closed without an answer."""
    headers: bytes = b""
    endless: bool = False
    """The answer's body does not end."""
    share: float = 1.0
    """Of the callbacks that it treats so; it takes the others."""

    @property
    def takes(self) -> bool:
        """Whether each callback is acknowledged in time."""
        return self.status == 200 and self.answer_s < 10 and self.connect_s is not None and self.connect_s >= 0


WELL = Manner()
MANNERS = (
    Manner(name="slow", answer_s=4.0),
    Manner(name="hangs", answer_s=NEVER),
    Manner(name="hangs now and then", answer_s=NEVER, share=0.5),
    Manner(name="refuses", connect_s=-1.0),
    Manner(name="unreachable", connect_s=None),
    Manner(name="503", status=503),
    Manner(name="503 with Retry-After", status=503, headers=b"Retry-After: 20\r\n"),
    Manner(name="404", status=404),
    Manner(name="500", status=500),
    Manner(name="redirects", status=302, headers=b"Location: http://169.254.169.254/\r\n"),
    Manner(name="closes", status=None),
    Manner(name="answers late", answer_s=25.0),
    Manner(name="never ends", endless=True),
)
GONE = Manner(name="410", status=410)


@dataclass(eq=False)
class Receiver:
    """A backend. `manners` are times (s) from which it behaves in some way; it begins well."""

    name: str
    manners: list[tuple[float, Manner]] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    on_callback: Callable[[Received], float] | None = None
    """Its handler; returns the seconds that it takes."""

    @property
    def manner(self) -> Manner:
        found = WELL
        for at, manner in self.manners:
            if at <= CLOCK.now:
                found = manner
        return found

    def well_during(self, since: float, until: float, *, quick: bool = False) -> bool:
        """Whether it took callbacks in time, all the time; `quick`: and was connected to at once."""
        began = [manner for at, manner in self.manners if at <= since][-1:]
        all_then = began + [manner for at, manner in self.manners if since < at <= until]
        return all(manner.takes and not (quick and manner.connect_s) for manner in all_then)


class Network(httpcore.AsyncNetworkBackend):
    """Connections of this world. In place of `httpcore.AnyIOBackend`."""

    def __init__(self, random: Random, receivers: dict[str, Receiver]) -> None:
        self.random = random
        self.receivers = receivers
        self.open: dict[str, int] = {}
        self.most_open: dict[str, int] = {}
        """Ends that the manager had under way at once, by receiver, at most."""
        self.slowness = 1.0

    def latency_s(self) -> float:
        return self.slowness * 0.02 * self.random.random()

    async def connect_tcp(self, host: str, _port: int, timeout: float | None = None, *_: Any, **__: Any) -> Any:  # noqa: ASYNC109
        receiver = self.receivers[host]
        connect_s = receiver.manner.connect_s
        wait_s = NEVER if connect_s is None else self.latency_s() + max(0.0, connect_s) * self.random.random()
        if timeout is not None and wait_s > timeout:
            await asyncio.sleep(timeout)
            raise httpcore.ConnectTimeout
        await asyncio.sleep(wait_s)
        if connect_s is not None and connect_s < 0:
            raise httpcore.ConnectError
        return Connection(self, receiver, current())

    async def connect_unix_socket(self, *_: Any, **__: Any) -> Any:
        raise httpcore.ConnectError

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Connection(httpcore.AsyncNetworkStream):
    """One connection, with the backend's end of it."""

    def __init__(self, network: Network, receiver: Receiver, process: Process) -> None:
        self._network = network
        self._receiver = receiver
        self._process = process
        self._request = b""
        self._answer = b""
        self._arrived = asyncio.Event()
        self._closed = self._ended = False
        self._got: Received | None = None
        self._idle_since = NEVER
        process.on_death[id(self)] = self._abandon

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        if self._ended or self._closed:
            raise httpcore.WriteError
        self._request += buffer
        head, found, body = self._request.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(fields[b"content-length"]):
            return
        self._request = b""
        self._begin(fields, body)

    def _begin(self, fields: dict[bytes, bytes], body: bytes) -> None:
        content = json.loads(body)
        got = Received(
            at=CLOCK.now,
            job_id=content["job_id"],
            message_id=fields[b"webhook-id"].decode(),
            sequence=int(fields[b"x-ml-sequence"]),
            body=content,
            raw=body,
            receiver=self._receiver.name,
            sender=self._process,
        )
        self._got = got
        self._count(1)
        Context().run(asyncio.get_running_loop().call_later, self._network.latency_s(), self._receive, got)

    def _count(self, more: int) -> None:
        if self._got is not None and self._got.ended and self._process.name == MANAGER_NAME:
            network, name = self._network, self._receiver.name
            network.open[name] = network.open.get(name, 0) + more
            network.most_open[name] = max(network.most_open.get(name, 0), network.open[name])

    def _receive(self, got: Received) -> None:
        manner = self._receiver.manner
        if manner.share < 1.0 and self._network.random.random() > manner.share:
            manner = WELL
        self._receiver.got.append(got)
        takes_s = self._receiver.on_callback(got) if self._receiver.on_callback else 0.0
        if manner.answer_s < NEVER:
            wait_s = takes_s + manner.answer_s + self._network.latency_s()
            asyncio.get_running_loop().call_later(wait_s, self._send, got, manner)

    def _send(self, got: Received, manner: Manner) -> None:
        if self._closed:
            return
        got.answered_at = CLOCK.now
        if manner.status is None:
            self._ended = True
        else:
            got.status = manner.status
            length = b"Transfer-Encoding: chunked\r\n" if manner.endless else b"Content-Length: 2\r\n"
            head = b"HTTP/1.1 %d x\r\n%s%s\r\n" % (manner.status, manner.headers, length)
            self._answer += head + (b"" if manner.endless else b"ok")
            if manner.endless:
                self._drip()
        self._arrived.set()

    def _drip(self) -> None:
        if not self._closed:
            self._answer += b"%x\r\n%s\r\n" % (len(ENDLESS_CHUNK), ENDLESS_CHUNK)
            self._arrived.set()
            asyncio.get_running_loop().call_later(ENDLESS_EVERY_S, self._drip)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                while not self._answer and not self._ended:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        taken, self._answer = self._answer[:max_bytes], self._answer[max_bytes:]
        if self._got is not None:
            self._got.read += len(taken)
            if taken and not self._receiver.manner.endless:
                self._finish()
        return taken

    def _finish(self) -> None:
        if self._got is not None and self._got.closed_at == NEVER:
            self._got.closed_at = self._idle_since = CLOCK.now
            self._count(-1)

    async def aclose(self) -> None:
        self._abandon()

    async def start_tls(self, *_: Any, **__: Any) -> Any:
        raise httpcore.ConnectError

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        return self._ended or CLOCK.now - self._idle_since > KEEP_ALIVE_S  # closed by the backend

    def _abandon(self) -> None:
        """Close the sender's end: it does so, or its process has died."""
        self._closed = True
        self._process.on_death.pop(id(self), None)
        self._finish()
