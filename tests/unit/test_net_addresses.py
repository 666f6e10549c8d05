"""W10: which addresses are never reached."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from deployments.errors import DownloadError
from deployments.net.addresses import METADATA, refused
from deployments.net.client import CallbackClient, CheckedBackend, NetError
from deployments.net.download import download
from deployments.net.policy import CallbackPolicy, DownloadLimits, NetPolicy, VideoPolicy

if TYPE_CHECKING:
    from pathlib import Path

REFUSED_TABLE = """
0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2
169.254.255.255 172.16.0.0 172.17.0.1 172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.192 192.0.2.0
192.0.2.255 192.31.196.1 192.52.193.1 192.88.99.0 192.88.99.1 192.168.0.0 192.168.1.1 192.168.255.255 192.175.48.1
198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.0 203.0.113.255 224.0.0.0 224.0.0.1 224.0.0.251 232.0.0.1
239.255.255.250 239.255.255.255 240.0.0.0 240.0.0.1 255.255.255.254 255.255.255.255 :: ::1 ::2 ::7f00:1 ::a00:1
::ffff:0:127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:169.254.169.254 64:ff9b::7f00:1
64:ff9b::808:808 64:ff9b:1::1 64:ff9b:1:ffff::a9fe:a9fe 100::1 100:0:0:1::1 200::1 1000::1 2001::1
2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1
2001:1ff:ffff::1 2001:db8::1 2001:db8:ffff::1 2002::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2620:4f:8000::1 3ffe::1
3fff::1 3fff:fff::1 4000::1 5f00::1 8000::1 c000::1 e000::1 fc00::1 fd00::1 fd00:ec2::254 fdff:ffff::1 fe00::1
fe80::1 fe80::1%eth0 2600::1%eth0 feb0::1 febf::1 fec0::1 fec0:0:0:ffff::1 ff01::1 ff02::1 ff02::fb ff05::2 ff0e::1
"""
PUBLIC_TABLE = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 52.216.0.1 99.255.255.255 100.63.255.255 100.128.0.0 126.255.255.255
128.0.0.1 168.63.129.15 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0
192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 203.0.112.255 203.0.114.0 223.255.255.255 2001:200::1
2001:4860:4860::8888 2400:cb00::1 2600:1f00::1 2606:4700:4700::1111 2620:0:2d0::1 2a00:1450::1 2c0f::1 3ffd::1
3fff:1000::1
"""
REFUSED = REFUSED_TABLE.split()
PUBLIC = PUBLIC_TABLE.split()


@pytest.mark.parametrize("address", REFUSED)
def test_w10_special_addresses_are_refused(address: str) -> None:
    """W10: an address that is not a public unicast one is refused, however it is dressed."""
    assert refused(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_w10_public_addresses_pass(address: str) -> None:
    """The list is not wider than it must be: the neighbours of the refused ranges pass."""
    assert not refused(ip_address(address))


def test_w10_the_table_is_long_enough() -> None:
    """W10 asks for at least 85 addresses."""
    assert len(set(REFUSED)) >= 85


def test_w10_a_named_network_is_reachable_and_only_it() -> None:
    """Naming a network opens that network, not its neighbours and not its disguises."""
    allowed = (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    assert not refused(ip_address("10.1.2.3"), allowed)
    assert not refused(ip_address("::1"), allowed)
    for other in ("10.2.0.1", "127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::a01:203", "::2"):
        assert refused(ip_address(other), allowed)


def test_w10_every_address_is_refused_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W10: a name that resolves to any of the table's addresses: no callback and no download tries to connect."""
    tried: list[str] = []

    async def connect(_: object, host: str, *__: object) -> None:
        tried.append(host)
        raise AssertionError(host)

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)

    async def both(address: str) -> None:
        async def resolve(_: str, __: int) -> list[str]:
            return [address]

        callbacks = CallbackPolicy(origins=("http://backend.example:8000",))
        async with CallbackClient(callbacks, resolve=resolve) as client:
            with pytest.raises(NetError, match="not_allowed"):
                await client.post("http://backend.example:8000/x", b"", {})
        limits = DownloadLimits(max_tries=1)
        with pytest.raises(DownloadError, match="not allowed"):
            await download("https://v.example/v", tmp_path / "v", policy=VideoPolicy(), limits=limits, resolve=resolve)

    for address in REFUSED:
        asyncio.run(both(address))
    assert tried == []


def test_w10_no_network_opens_a_clouds_metadata() -> None:
    """W10: where credentials are handed out, nobody gets by naming the network around it, nor the address itself."""
    for address in METADATA:
        assert refused(address)
        assert refused(address, (ip_network(f"{address}/{address.max_prefixlen}"),))
    assert refused(ip_address("fd00:ec2::254"), (ip_network("fd00::/8"),))
    assert not refused(ip_address("fd00:ec2::255"), (ip_network("fd00::/8"),))


@pytest.mark.parametrize(
    "network", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "10.0.0.0/7", "128.0.0.0/2", "2000::/3", "8000::/0"]
)
def test_w10_no_network_is_a_switch(network: str) -> None:
    """W10: what is wider than a special network would turn the checks off: refused when it is read."""
    with pytest.raises(ValidationError):
        NetPolicy(networks=(network,))
    assert NetPolicy(networks=("10.0.0.0/8", "172.16.0.0/12", "127.0.0.0/8", "::1/128", "fd12:3456::/32"))


def test_w10_a_unix_socket_is_no_way_around() -> None:
    """W10: the backend opens TCP connections to checked addresses and nothing else."""
    backend = CheckedBackend((), resolve=None)
    with pytest.raises(Exception, match="address"):
        asyncio.run(backend.connect_unix_socket("/run/docker.sock"))
