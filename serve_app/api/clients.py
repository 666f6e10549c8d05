"""From where a request comes, and whether somebody from there may ask.

What is known is the other end of the connection. `X-Forwarded-For` is believed from named proxies only; from anybody
else it can take a right away, never give one. Serve's proxy runs on uvicorn, which puts the header's word in the place
of the connection's other end where that is this machine, unless `FORWARDED_ALLOW_IPS` is empty (`ml-server up` sees to
it): a client that the header names itself may thus be this machine, and needs this machine's rights, too.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from deployments.net.addresses import Address, Network, parse
from deployments.net.policy import LOOPBACK
from serve_app.api.errors import ClientNotAllowedError
from serve_app.api.limits import HEALTH
from serve_app.api.refusal import refuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

HERE = (LOOPBACK, IPv6Address("::1"))


class Clients:
    """ASGI middleware: refuses who is not from `networks`, where there are any, and tells the app who the client is."""

    def __init__(self, app: ASGIApp, *, networks: Sequence[Network], proxies: Sequence[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._proxies = tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on who may ask; `/health` is open to all."""
        if scope["type"] == "http":
            peer, port = scope.get("client") or ("", 0)
            client, *others = self.behind(_address(peer), _hops(scope["headers"]))
            if scope["path"] != HEALTH and not self._allowed([client, *others]):
                await refuse(scope, send, ClientNotAllowedError())
                return
            scope = {**scope, "client": (str(client or "unknown"), port)}
        await self._app(scope, receive, send)

    def behind(self, peer: Address | None, hops: Sequence[Address | None]) -> list[Address | None]:
        """Who asks, and after that whoever else has to be allowed. None: nobody knows.

        Args:
            peer: The connection's other end, or what uvicorn has put in its place.
            hops: `X-Forwarded-For` from its end, the nearest first.
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
    """All that `X-Forwarded-For` names, the nearest first; None for what is no address."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [_address(part) for part in reversed(",".join(lines).split(","))] if lines else []


def _address(text: Any) -> Address | None:
    """An address with or without a port; an IPv4 address that came over an IPv6 socket as what it is."""
    host = str(text).strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    address = parse(host)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
