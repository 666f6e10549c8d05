"""The settings of outgoing connections, and the checks of a URL before any connection.

Names are not resolved here; the resolved addresses are checked when connecting (`client.py`), since a name can
answer differently the next time. Both sides parse with `httpx.URL`, so that they never disagree on the host.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator

from deployments.net.addresses import Address, Network, is_switch, parse, refused

if TYPE_CHECKING:
    import httpx

MIB = 1 << 20
Scheme = Literal["http", "https"]
DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}
LOOPBACK = IPv4Address("127.0.0.1")

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_HOST_PATTERN = re.compile(r"[a-z0-9_.*:-]+")
_ENDS_IN_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
_PROXY = re.compile(r"https?://[^\s/?#]+/?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:(?P<port>[0-9]{1,5}|\*))?/?")


class AddressRefusedError(Exception):
    """The rules do not allow this URL. It carries the name of the rule, never the address.

    `reason`: malformed, scheme, credentials, host, port, address or origin.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NetPolicy(BaseModel):
    """Settings of outgoing connections. Use `VideoPolicy` or `CallbackPolicy`.

    These are separate so that allowing the backend's private network for callbacks does not allow it for video URLs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Special networks (private, loopback, …) that are allowed."""
    proxy: SecretStr | None = None
    """An HTTP proxy's URL. The proxy then resolves names, and their addresses are not checked here."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust instead of the bundled public ones."""

    @field_validator("networks")
    @classmethod
    def _only_special_ones(cls, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        if wide := [str(network) for network in networks if is_switch(network)]:
            raise ValueError(f"{', '.join(wide)} is more than one special network: name those that you mean")
        return networks

    @field_validator("proxy")
    @classmethod
    def _spell_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is not None and not _PROXY.fullmatch(proxy.get_secret_value()):
            raise ValueError("proxy is no URL of an HTTP proxy, such as http://proxy:3128")
        return proxy

    @field_validator("ca_file")
    @classmethod
    def _find_certificates(cls, ca_file: Path | None) -> Path | None:
        if ca_file is not None and not ca_file.is_file():
            raise ValueError("ca_file is no file on this machine")
        return ca_file


class VideoPolicy(NetPolicy):
    """Where videos may come from."""

    schemes: frozenset[Scheme] = frozenset({"https"})
    """Allowed URL schemes."""
    hosts: tuple[str, ...] = ()
    """Host patterns ("*.s3.*.amazonaws.com"): a `*` at the beginning stands for anything, another one for a part of a
    name between two dots. Empty: any host."""
    ports: tuple[int, ...] | Literal["*"] = ()
    """Ports allowed beside the scheme's own; "*": any."""

    @field_validator("hosts")
    @classmethod
    def _spell_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [host for host in hosts if not _HOST_PATTERN.fullmatch(host)]:
            raise ValueError(f"not a host pattern (lower-case name with *): {bad}")
        return hosts

    @property
    def names_hosts(self) -> bool:
        """Whether `hosts` excludes any host."""
        return bool(self.hosts) and all(host.strip("*.") for host in self.hosts)


class CallbackPolicy(NetPolicy):
    """Where callbacks may go."""

    origins: tuple[str, ...] = ()
    """Exact origins: "http://ecg-backend:8000", "https://api.example.com"; port `*` for any: "http://127.0.0.1:*"."""

    @field_validator("origins")
    @classmethod
    def _spell_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [origin for origin in origins if not _ORIGIN.fullmatch(origin)]:
            raise ValueError(f'not an origin ("http://name:8000", lower case, no path): {bad}')
        return origins

    @model_validator(mode="after")
    def _name_networks(self) -> Self:
        for origin in self.origins:
            address = literal_address(Origin.of_entry(origin)[0].host)
            if address is not None and refused(address, self.networks):
                raise ValueError(f"{origin} lies in a special network: name that network in `networks`, too")
        return self


class DownloadLimits(BaseModel):
    """Limits of one download."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = 2048 * MIB
    """Largest file: 2 GiB, so that every file that is shown as 2 GB passes."""
    deadline_s: float = 900.0
    """Longest time of the whole download with all tries."""
    connect_s: float = 10.0
    """Longest time to open a connection, name resolution and TLS included."""
    stall_s: float = 30.0
    """Longest wait for the next byte."""
    min_bytes_per_s: float = 20_000.0
    """Slowest speed, measured over each `pace_window_s`."""
    pace_window_s: float = 30.0
    """Interval over which the speed is measured."""
    max_redirects: int = 3
    """Most redirects in a row, each checked like the first URL."""
    max_tries: int = 4
    """Most tries in a row without a new byte. A cut after new bytes resets the count."""
    max_cuts: int = 100
    """Most cuts in one download."""
    pause_s: float = 0.5
    """Pause before the second try; doubled for each further try without progress."""
    disk_reserve_bytes: int = 512 * MIB
    """Disk space that must stay free."""


class Origin(NamedTuple):
    """Scheme, host in ASCII lower case without a trailing dot, and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: "httpx.URL") -> Self:
        """Return the origin of `url`.

        Raises AddressRefusedError where it is not http(s), its host or port is malformed, or it has credentials.
        """
        if url.scheme not in DEFAULT_PORTS:
            raise AddressRefusedError("scheme")
        if url.userinfo:
            raise AddressRefusedError("credentials")
        host = url.raw_host.decode("ascii").lower().removesuffix(".")
        if parse(host) is None and not _HOST_NAME.fullmatch(host):
            raise AddressRefusedError("malformed")
        port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        if not 0 < port < 1 << 16:
            raise AddressRefusedError("port")
        return cls(url.scheme, host, port)

    @classmethod
    def of_entry(cls, entry: str) -> tuple[Self, bool]:
        """Return the origin of a whitelist entry, and whether it is valid for any port."""
        match = _ORIGIN.fullmatch(entry)
        if match is None:
            raise ValueError(entry)
        scheme, host, port = match["scheme"], match["host"].strip("[]"), match["port"]
        return cls(scheme, host, int(port) if port and port != "*" else DEFAULT_PORTS[scheme]), port == "*"


def check_video_url(url: str, policy: VideoPolicy) -> None:
    """Raise AddressRefusedError, which names the rule, for a video URL that is not allowed. Resolves no host."""
    origin = Origin.of(_parsed(url))
    if origin.scheme not in policy.schemes:
        raise AddressRefusedError("scheme")
    if policy.hosts and not any(_matches(origin.host, pattern) for pattern in policy.hosts):
        raise AddressRefusedError("host")
    if policy.ports != "*" and origin.port not in (DEFAULT_PORTS[origin.scheme], *policy.ports):
        raise AddressRefusedError("port")
    _check_literal(origin.host, policy)


def _matches(host: str, pattern: str) -> bool:
    """Return whether a host pattern allows `host`. Dots count: else a bucket's name could pass for a region."""
    begin = ".*" if pattern.startswith("*") else ""
    rest = "[^.]*".join(map(re.escape, pattern.removeprefix("*").split("*")))
    return re.fullmatch(begin + rest, host) is not None


def check_callback_url(url: str, policy: CallbackPolicy) -> None:
    """Raise AddressRefusedError, which names the rule, for a callback URL (or its base) whose origin is not listed."""
    parsed = _parsed(url)
    if parsed.query or parsed.fragment:
        raise AddressRefusedError("malformed")
    origin = Origin.of(parsed)
    for entry in policy.origins:
        listed, any_port = Origin.of_entry(entry)
        if listed == (origin._replace(port=listed.port) if any_port else origin):
            break
    else:
        raise AddressRefusedError("origin")
    _check_literal(origin.host, policy)


def literal_address(host: str) -> Address | None:
    """Return the address of `host` if it needs no resolution: an IP address, or localhost."""
    if host == "localhost" or host.endswith(".localhost"):
        return LOOPBACK
    return parse(host)


def _parsed(url: str) -> "httpx.URL":
    import httpx

    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        raise AddressRefusedError("malformed") from None


def _check_literal(host: str, policy: NetPolicy) -> None:
    address = literal_address(host)
    if address is None and _ENDS_IN_NUMBER.search(host):  # 127.1, 0x7f000001, 2130706433, 0177.0.0.1
        raise AddressRefusedError("address")
    if address is not None and refused(address, policy.networks):
        raise AddressRefusedError("address")
