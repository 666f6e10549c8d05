"""Refuses to listen where the server would be open to more clients than the settings name. Knows no Ray, no HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.net.policy import literal_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.settings import Auth, Settings

FORWARDED = "FORWARDED_ALLOW_IPS"
"""The addresses whose `X-Forwarded-For` uvicorn believes inside Serve's proxy, before our code sees the request."""


class ExposedError(Exception):
    """The server would be open to more clients than the settings name; the message says to whom, and what to set."""


def check_bind(host: str | None, auth: Auth) -> None:
    """Allow Serve's HTTP proxy to listen on `host` if that is loopback, or `auth` wants keys or names networks.

    `host` is None if there is no proxy. Raises ExposedError if whoever reaches the server could use it.
    """
    if host is None or is_loopback(host) or auth.mode == "keys" or auth.networks:
        return
    raise ExposedError(
        f"it would listen on {host or 'every address'}, beyond this machine, and serve whoever comes: set auth.mode to"
        " keys, or name the clients' networks in auth.networks, or listen on 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address, or `localhost`; other names are not resolved."""
    address = literal_address(host.lower())
    return address is not None and address.is_loopback


def check_token(settings: Settings, environment: Mapping[str, str]) -> None:
    """Check that production runs on a Ray that requires its token. Raises ExposedError if it requires none."""
    if settings.profile == "production" and environment.get("RAY_AUTH_MODE", "").lower() != "token":
        raise ExposedError(
            "this Ray asks nobody for a token, so that whoever reaches its ports can run code: set RAY_AUTH_MODE=token"
            " and RAY_AUTH_TOKEN_PATH in the environment of every node"
        )


def check_forwarding(environment: Mapping[str, str]) -> None:
    """Check that uvicorn believes forwarded addresses from this machine only. Raises ExposedError if not."""
    named = [part.strip() for part in environment.get(FORWARDED, "").split(",")]
    if others := [name for name in named if name and not is_loopback(name)]:
        raise ExposedError(
            f"{FORWARDED} in the environment has {', '.join(others)} say who a client is: unset it, and name"
            " your proxies in auth.proxies"
        )
