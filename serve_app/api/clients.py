"""Finds the address of a request's client, and refuses clients outside the allowed networks.

Only the connection's peer is certain. `X-Forwarded-For` is believed from the configured proxies; from others it can
only restrict a request, never allow it. Serve's proxy runs on uvicorn, which replaces a loopback peer by the header's
address unless `FORWARDED_ALLOW_IPS` is empty (as `ml-server up` sets it). So a peer that equals an address of the
header may really be this machine, and this machine has to be allowed, too.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from deployments.net.addresses import Address, Network, parse
from deployments.net.policy import LOOPBACK
from serve_app.api.errors import ClientNotAllowedError
from serve_app.api.refusal_messages import refuse
from serve_app.api.request_checks import HEALTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

HERE = (LOOPBACK, IPv6Address("::1"))


class Clients:
    """ASGI middleware: refuses clients outside `networks` (empty: none), and sets the client's address for the app."""

    def __init__(self, app: ASGIApp, *, networks: Sequence[Network], proxies: Sequence[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._proxies = tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests of allowed clients; `/health` is open to all."""
        if scope["type"] == "http":
            peer, port = scope.get("client") or ("", 0)
            client, *others = self.behind(_address(peer), _hops(scope["headers"]))
            if scope["path"] != HEALTH and not self._allowed([client, *others]):
                await refuse(scope, send, ClientNotAllowedError())
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

    def _allowed(self, all_of_them: Iterable[Address | None]) -> bool:
        return not self._networks or all(_in(address, self._networks) for address in all_of_them)


def _in(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


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
    address = parse(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
