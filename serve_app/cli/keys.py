"""`ml-server keys`: makes, lists and revokes the API keys in the database that a config names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from serve_app.api.request_checks import FRESH_S
from serve_app.storage.api_keys import KeyNameError, KeyStore
from serve_app.storage.database import open_database

if TYPE_CHECKING:
    from serve_app.settings import Settings

EXIT_OK = 0
EXIT_WRONG = 1
NOT_WANTED = "This config has auth.mode: none, so the server asks for no key."


def add_key(settings: Settings, name: str) -> int:
    """Print the new key on stdout, and notes on stderr; return the exit code."""
    try:
        click.echo(_keys(settings).add(name))
    except KeyNameError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"This is the only time that it is shown. It works within {FRESH_S:.0f} s, without a restart.", err=True)
    if settings.auth.mode == "none":
        click.echo(NOT_WANTED, err=True)
    return EXIT_OK


def list_keys(settings: Settings) -> int:
    """Print name and creation time of each key, and the number of those in the settings; return the exit code."""
    for key in _keys(settings).list():
        click.echo(f"{key.name}\t{datetime.fromtimestamp(key.created_at, UTC):%Y-%m-%d %H:%M} UTC")
    if settings.auth.key_hashes:
        click.echo(f"And {len(settings.auth.key_hashes)} in auth.key_hashes.", err=True)
    if settings.auth.mode == "none":
        click.echo(NOT_WANTED, err=True)
    return EXIT_OK


def revoke_key(settings: Settings, name: str) -> int:
    """Revoke a key; return the exit code. Raises `click.ClickException` if there is no such key."""
    if not _keys(settings).revoke(name):
        raise click.ClickException(f"there is no key named {name}")
    click.echo(f"Revoked: {name} opens nothing any more, {FRESH_S:.0f} s from now at the latest.")
    return EXIT_OK


def _keys(settings: Settings) -> KeyStore:
    return KeyStore(open_database(settings))
