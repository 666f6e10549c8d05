"""HTTP with the address rules built in: connections go to exactly the address that was checked.

Works on httpx' transport, below its client: no cookies, no redirects of its own, no environment, no log line with
the URL. Every failure is raised as a `NetError`, which holds one word and no URL.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeAlias

import httpcore
import httpx

from deployments.net.addresses import Network, parse, refused
from deployments.net.policy import AddressRefusedError, CallbackPolicy, NetPolicy, check_callback_url

if TYPE_CHECKING:
    from pathlib import Path

USER_AGENT = "ML-Server/1.0"
Kind = Literal["unreachable", "timeout", "cut_off", "not_allowed"]
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Resolves host and port to IP addresses."""


class NetError(Exception):
    """A request without an answer. `kind`: unreachable, timeout, cut_off (after connecting) or not_allowed."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.kind = kind


LOOKUPS = ThreadPoolExecutor(max_workers=16, thread_name_prefix="dns")
"""Threads for name resolution alone: it cannot be cancelled, and clients choose the names. In the threads of
`asyncio.to_thread`, names whose servers do not answer would keep the database waiting."""
_running: dict[tuple[str, int], Future[list[str]]] = {}


async def resolve(host: str, port: int) -> list[str]:
    """Resolve `host` as this machine does, each name once at a time. Raises OSError where it has no address."""
    key = host, port
    lookup = _running.get(key)
    if lookup is None:
        lookup = _running[key] = LOOKUPS.submit(_look_up, host, port)
        lookup.add_done_callback(lambda _: _running.pop(key))
    return await asyncio.shield(asyncio.wrap_future(lookup))


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to checked addresses only; TLS and the Host header still see the name."""

    def __init__(self, networks: Iterable[Network], *, resolve: Resolve) -> None:
        self._networks = tuple(networks)
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class' signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first allowed address that answers, within `timeout`. Raises AddressRefusedError."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._checked(host, port)
                for address in addresses[:-1]:
                    try:
                        share_s = timeout / len(addresses) if timeout else None
                        return await self._inner.connect_tcp(address, port, share_s, local_address, socket_options)
                    except (httpcore.ConnectError, httpcore.ConnectTimeout):
                        continue
                return await self._inner.connect_tcp(addresses[-1], port, None, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None

    async def _checked(self, host: str, port: int) -> list[str]:
        literal = parse(host)
        try:
            found = [str(literal)] if literal else await self._resolve(host, port)
        except OSError:
            raise httpcore.ConnectError from None
        parsed = [(address, parse(address)) for address in found]
        checked = [text for text, address in parsed if address and not refused(address, self._networks)]
        if not checked:
            raise AddressRefusedError("address")
        return checked

    async def connect_unix_socket(self, *_: Any, **__: Any) -> NoReturn:
        """Raise AddressRefusedError: no Unix socket is connected to."""
        raise AddressRefusedError("address")

    async def sleep(self, seconds: float) -> None:
        """Sleep, as the base class requires."""
        await asyncio.sleep(seconds)


class CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx' own transport over `CheckedBackend`."""

    def __init__(self, policy: NetPolicy, *, resolve: Resolve = resolve) -> None:
        verify = tls_context(policy.ca_file)
        if policy.proxy is not None:
            super().__init__(verify=verify, trust_env=False, proxy=policy.proxy.get_secret_value())
            return
        super().__init__(verify=verify, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=verify,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=30,
            network_backend=CheckedBackend(policy.networks, resolve=resolve),
        )


@lru_cache(maxsize=4)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return what checks certificates, by certifi's or the file's: one for all clients, since loading takes 20 ms."""
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    return ssl.create_default_context(cafile=str(ca_file))


def translate(error: Exception) -> NetError:
    """Return the `NetError` for a library's exception."""
    if isinstance(error, NetError):
        return NetError(error.kind)
    kinds: tuple[tuple[tuple[type[Exception], ...], Kind], ...] = (
        ((AddressRefusedError, httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError), "not_allowed"),
        ((TimeoutError, httpx.TimeoutException), "timeout"),
        ((httpx.ConnectError, httpx.ProxyError), "unreachable"),
    )
    return NetError(next((kind for types, kind in kinds if isinstance(error, types)), "cut_off"))


@asynccontextmanager
async def exchange(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, *, connect_s: float, stall_s: float
) -> AsyncIterator[httpx.Response]:
    """Send `request`, yield the response with its body unread, and close it afterwards.

    `stall_s` bounds each single wait for the peer, not the whole: put `asyncio.timeout` around.
    Raises NetError, also where the body is read inside the `async with`.
    """
    timeouts = httpx.Timeout(stall_s, connect=connect_s).as_dict()
    request.extensions = {**request.extensions, "timeout": timeouts}
    response = None
    try:
        response = await transport.handle_async_request(request)
        yield response
    except (AddressRefusedError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError) as error:
        raise translate(error) from None
    finally:
        if response is not None:
            await response.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A receiver's answer to a callback. `retry_after_s` is None without a Retry-After header."""

    status: int
    retry_after_s: float | None


class CallbackClient:
    """Posts callbacks over reused connections. Belongs to one event loop; use it as a context manager."""

    def __init__(self, policy: CallbackPolicy, *, resolve: Resolve = resolve) -> None:
        self._policy = policy
        self._transport = CheckedTransport(policy, resolve=resolve)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        deadline_s: float = 20.0,
        connect_s: float = 5.0,
        max_answer_bytes: int = 20_000,
    ) -> Answer:
        """POST the exact bytes of `body`, with `headers` beside `User-Agent` and `Content-Length`.

        `url` is checked against the whitelist once more. Redirects are not followed; little of the answer's body is
        read, and discarded. Raises NetError where there is no answer within `deadline_s`.
        """
        answer: Answer | None = None
        try:
            check_callback_url(url, self._policy)
            async with asyncio.timeout(deadline_s):
                request = httpx.Request("POST", url, content=body, headers={"User-Agent": USER_AGENT, **headers})
                async with exchange(self._transport, request, connect_s=connect_s, stall_s=deadline_s) as response:
                    answer = Answer(status=response.status_code, retry_after_s=_retry_after_s(response.headers))
                    await _drain(response, max_answer_bytes)
        except (AddressRefusedError, NetError, TimeoutError) as error:
            if answer is None:  # else the status line has come, and the rest of the answer does not matter
                raise translate(error) from None
        return answer


async def _drain(response: httpx.Response, max_bytes: int) -> None:
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read >= max_bytes:
            return


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return `Retry-After`, a number of seconds or a date (RFC 9110, 10.2.3), in seconds from now."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
