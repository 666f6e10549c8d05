"""The IP addresses that are never connected to, as an explicit list.

`ipaddress.is_global` passes multicast, NAT64, 6to4 and more, and `is_private` passes 100.64/10 (Python 3.11), so
neither is used. Source: the IANA special-purpose address registries (RFC 6890 and its updates) and the clouds'
metadata addresses. For IPv6 only 2000::/3 is in public use, so everything else is refused.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

REFUSED_V4: tuple[IPv4Network, ...] = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # "this network"; 0.0.0.0 reaches this machine
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform address
        "169.254.0.0/16",  # link-local; the clouds' metadata at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnelling
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
REFUSED_V6: tuple[IPv6Network, ...] = tuple(
    IPv6Network(network)
    for network in (
        "::/3",  # ::, ::1, v4-mapped ::ffff/96, v4-compatible, NAT64 64:ff9b::/96 and 64:ff9b:1::/48, discard 100::/64
        "2001::/23",  # IETF protocol assignments: Teredo 2001::/32, benchmarking, AMT, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the returned 6bone
        "3fff::/20",  # documentation
        "4000::/2",  # unassigned; SRv6 5f00::/16
        "8000::/1",  # unassigned; unique local fc00::/7, link-local fe80::/10, site-local, multicast ff00::/8
    )
)
METADATA: frozenset[Address] = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Google, Azure, Oracle and most others
        "169.254.170.2",  # AWS: credentials of a container
        "169.254.170.23",  # AWS: of a pod
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS: of a pod
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
"""Where clouds hand out credentials: refused even inside an allowed network."""


def refused(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Return whether `address` must not be connected to. `allowed`: special networks that are allowed."""
    if address in METADATA or (isinstance(address, IPv6Address) and address.scope_id is not None):
        return True
    if any(address in network for network in allowed if network.version == address.version):
        return False
    if isinstance(address, IPv4Address):
        return any(address in network for network in REFUSED_V4)
    return any(address in network for network in REFUSED_V6)


def is_switch(network: Network) -> bool:
    """Return whether `network` contains a whole special network and more: too wide to be allowed."""
    if isinstance(network, IPv4Network):
        return any(special.subnet_of(network) and special != network for special in REFUSED_V4)
    return any(special.subnet_of(network) and special != network for special in REFUSED_V6)


def parse(host: str) -> Address | None:
    """Return the address that `host` is in standard notation, else None."""
    try:
        return ip_address(host)
    except ValueError:
        return None
