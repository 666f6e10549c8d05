"""Middlewares around the routes: who may ask, how much, how often, and the headers that every response has."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError

from deployments import logs
from deployments.net import addresses
from deployments.net.policy import LOOPBACK
from serve_app.api.errors import (
    SAFE_HEADERS,
    ApiError,
    ClientNotAllowedError,
    HostNotAllowedError,
    RateLimitedError,
    RequestTooLargeError,
    UnauthorizedError,
    UnavailableError,
    refuse,
)
from serve_app.storage.api_keys import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from limits import RateLimitItem
    from limits.aio.storage import Storage
    from pydantic import SecretStr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from deployments.net.addresses import Address, Network
    from serve_app.settings import Auth
    from serve_app.storage.api_keys import KeyStore

HEALTH = "/health"
HERE = (LOOPBACK, IPv6Address("::1"))
LOCALHOST = "localhost"
STORAGE_S = 0.5
"""Timeout of the shared storage; a request has five seconds in all."""
FRESH_S = 2.0
"""A new key works, and a revoked one does not, after so long at the latest."""
LOOK_S = 1.0
"""Timeout of the look-up of keys: a request has five seconds in all, and the job table may take four of them."""
RETRY_AFTER_S = 5
log = logs.get_logger("api")


class SafeHeaders:
    """ASGI middleware: adds those of `SAFE_HEADERS` that a response does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to the response."""

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name.lower() for name, _ in message["headers"]}
                own = [header for header in SAFE_HEADERS if header[0] not in said]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await self._app(scope, receive, completed)


class BodyLimit:
    """ASGI middleware: answers 413 to a body over `max_bytes`, by its header or while it is read.

    Needed where Ray's proxies run without `proxy_guard`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless its body is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await refuse(scope, send, RequestTooLargeError())
            return
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen, answered
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes and not answered:
                answered = True
                await refuse(scope, send, RequestTooLargeError())
            return {"type": "http.disconnect"} if answered else message

        async def unless_answered(message: Message) -> None:
            if not answered:
                await send(message)

        await self._app(scope, counted, unless_answered)


class Clients:
    """ASGI middleware: refuses clients and hosts that `auth` does not name; sets the client's address for the app.

    Only the connection's peer is certain. `X-Forwarded-For` is believed from the configured proxies; from others it can
    only restrict a request, never allow it. Serve's proxy runs on uvicorn, which replaces a loopback peer by the
    header's address unless `FORWARDED_ALLOW_IPS` is empty (as `ml-server up` sets it). So a peer that equals an address
    of the header may really be this machine, and this machine has to be allowed, too.

    A page in a browser of this machine can make its own host name mean 127.0.0.1 (DNS rebinding), and would then read
    the answers of a server that asks for no key. Its requests have that name as their `Host`.
    """

    def __init__(self, app: ASGIApp, *, auth: Auth) -> None:
        self._app = app
        self._networks = auth.networks
        self._proxies = auth.proxies
        self._hosts = frozenset(host.lower() for host in auth.hosts)
        self._has_keys = auth.mode == "keys"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests of allowed clients; `/health` is open to all."""
        if scope["type"] == "http":
            peer, port = scope.get("client") or ("", 0)
            client, *others = self.behind(_address(peer), _hops(scope["headers"]))
            if scope["path"] != HEALTH:
                if not self._allowed([client, *others]):
                    await refuse(scope, send, ClientNotAllowedError())
                    return
                if not self._is_ours(_host(scope["headers"]), _address(peer)):
                    await refuse(scope, send, HostNotAllowedError())
                    return
            scope = {**scope, "client": (str(client or "unknown"), port)}
        await self._app(scope, receive, send)

    def behind(self, peer: Address | None, hops: Sequence[Address | None]) -> list[Address | None]:
        """Return the client's address, then the other addresses that must be allowed, too. None: unknown.

        Args:
            peer: The connection's peer, or what uvicorn has put in its place.
            hops: The addresses of `X-Forwarded-For`, the nearest first.
        """
        nearest = next((hop for hop in hops if not _in(hop, self._proxies)), hops[-1] if hops else peer)
        if _in(peer, self._proxies) or not hops:
            return [nearest]
        if peer in hops and not any(_in(here, self._proxies) for here in HERE):
            return [LOOPBACK, peer, nearest]
        return [peer, nearest]

    def _is_ours(self, host: str, peer: Address | None) -> bool:
        """Return whether a request of `peer` may call this server `host`."""
        if not host or host == LOCALHOST or _address(host) is not None or host in self._hosts:
            return True
        if self._hosts:
            return False
        return self._has_keys or peer not in HERE or _in(peer, self._proxies)

    def _allowed(self, all_of_them: Iterable[Address | None]) -> bool:
        return not self._networks or all(_in(address, self._networks) for address in all_of_them)


def _in(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def _host(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the `Host` header in lower case without its port; empty where there is none."""
    host = dict(headers).get(b"host", b"").decode("latin-1").strip().lower()
    return host if host.startswith("[") else host.partition(":")[0].removesuffix(".")


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> list[Address | None]:
    """Return the addresses of `X-Forwarded-For`, the nearest first; None for what is no address."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [_address(part) for part in reversed(",".join(lines).split(","))] if lines else []


def _address(text: Any) -> Address | None:
    """Parse an address with or without a port; return an IPv4-mapped IPv6 address as IPv4."""
    host = str(text).strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    address = addresses.parse(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class KeyRing:
    """The API keys: those of the settings, and the database's as of at most `FRESH_S` ago. Knows nothing of HTTP."""

    def __init__(self, fixed: Sequence[str], store: KeyStore) -> None:
        self._fixed = tuple(bytes.fromhex(text) for text in fixed)
        self._store = store
        self._stored: tuple[bytes, ...] | None = None
        self._looked_at = -math.inf
        self._turn = asyncio.Lock()

    async def check(self, authorization: str) -> str:
        """Return the digest of the key that a request carries. Raises `UnauthorizedError`, `UnavailableError`."""
        scheme, _, key = authorization.partition(" ")
        given = digest(key.strip())
        stored = await self._fresh()
        known = [hmac.compare_digest(given, wanted) for wanted in (*self._fixed, *(stored or ()))]  # each, always
        if scheme.lower() == "bearer" and any(known):
            return given.hex()
        if scheme.lower() == "bearer" and stored is None:
            raise UnavailableError(retry_after_s=RETRY_AFTER_S)  # it may be a good one
        raise UnauthorizedError

    async def _fresh(self) -> tuple[bytes, ...] | None:
        """Return the database's digests, the last known ones while it is away, None if it was never reached."""
        async with self._turn:
            if time.monotonic() - self._looked_at > FRESH_S:
                try:
                    async with asyncio.timeout(LOOK_S):
                        self._stored = await asyncio.to_thread(self._store.digests)
                except (SQLAlchemyError, TimeoutError) as error:
                    log.warning("the API keys could not be looked up", extra={"error": type(error).__name__})
                self._looked_at = time.monotonic()
            return self._stored


class Gate:
    """ASGI middleware: checks the client's key and rate before the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing | None,
        rate: str | None,
        storage: Storage,
        no_key: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`no_key` returns whether a path is open without a key."""
        self._app = app
        self._open = no_key
        self._keys = keys
        self._rate = parse(rate) if rate else None
        self._limiter = MovingWindowRateLimiter(storage)
        self._own_limiter = MovingWindowRateLimiter(MemoryStorage())
        """Used while the shared storage does not answer: each replica then counts its own requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on allowed requests. `/health` is open to all; files without job data need no key."""
        if scope["type"] == "http" and scope["path"] != HEALTH:
            try:
                await self._check(scope)
            except ApiError as refusal:
                await refuse(scope, send, refusal)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        client = str((scope.get("client") or ("unknown",))[0])
        if self._keys is not None and not self._open(scope["path"]):
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            client = await self._keys.check(authorization)
        if self._rate and (wait_s := await self._wait_s(self._rate, client)):
            raise RateLimitedError(retry_after_s=wait_s)

    async def _wait_s(self, rate: RateLimitItem, client: str) -> int:
        """Count a request; return the seconds to wait before the next one, 0 if this one is within the rate."""
        try:
            async with asyncio.timeout(STORAGE_S):
                return await _hit(self._limiter, rate, client)
        except Exception as error:  # noqa: BLE001 - whatever the storage's client raises
            log.warning("the shared rate limits do not answer", extra={"error": type(error).__name__})
            return await _hit(self._own_limiter, rate, client)


async def _hit(limiter: MovingWindowRateLimiter, rate: RateLimitItem, client: str) -> int:
    if await limiter.hit(rate, client):
        return 0
    reset_at, _ = await limiter.get_window_stats(rate, client)
    return max(1, math.ceil(reset_at - time.time()))


def open_storage(url: SecretStr | None) -> Storage:
    """Return the store for counting requests: Redis for all replicas, or this process's memory. Does not connect."""
    if url is None:
        return MemoryStorage()
    return RedisStorage(f"async+{url.get_secret_value()}", implementation="redispy", socket_timeout=STORAGE_S)
