"""`ml-server models`: fetches, checks and lists the models that a config uses. The work is `deployments.models`'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import yaml
from pydantic import ValidationError
from rich.console import Console

from deployments.errors import ModelLoadError
from deployments.models import lock as locks
from deployments.models.digests import names_in
from deployments.models.fetch import Source, fetch, sources
from deployments.models.hub import needed
from deployments.models.store import ModelState, ModelStatus, hub_of, read_lock, stand, usable
from serve_app.cli.progress_bar import DownloadBar
from serve_app.settings import Settings, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from deployments.models.config import ModelsConfig
    from deployments.models.hub import Hub
    from deployments.models.names import Wanted

EXIT_OK = 0
EXIT_WRONG = 1
UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInventory:
    """The models of one config, and where they come from."""

    wanted: Sequence[Wanted]
    config: ModelsConfig
    lock_path: Path
    command: str
    """The command that fetches them."""
    hub: Hub
    fetches_at_start: bool = False
    """Whether `ensure_models` may fetch."""

    def standings(self) -> Iterator[ModelStatus]:
        """Yield the state of each model on this machine."""
        lock = read_lock(self.config)
        for wanted in self.wanted:
            yield stand(wanted, lock, self.config, self.hub)


def open_inventory(config_path: Path, lock_path: Path | None = None, *, hub: Hub | None = None) -> ModelInventory:
    """Return the models of a Serve config. Raises `click.ClickException` if the file is no config of this server."""
    settings = read_settings(config_path)
    path = (lock_path or settings.models.lock or locks.default_path()).expanduser()
    config = settings.models.model_copy(update={"lock": path})
    command = f"ml-server models fetch --config {config_path}" + (f" --lock {lock_path}" if lock_path else "")
    return ModelInventory(
        wanted=settings.wanted_models,
        config=config,
        lock_path=path,
        command=command,
        hub=hub or hub_of(config),
        fetches_at_start=settings.fetches_models,
    )


def read_settings(path: Path) -> Settings:
    """Return the settings of a Serve config. Raises `click.ClickException` if the file is no config of this server."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Settings(**content["applications"][0].get("args", {}))
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise click.ClickException(f"{path} is no Serve config of this server: {error}") from error
    except ValidationError as error:
        raise click.ClickException(f"{path}: {in_words(error)}") from error


def fetch_models(inventory: ModelInventory, *, pin: bool) -> int:
    """Fetch missing or damaged models one by one, all of them even if some fail; return the exit code."""
    failed = 0
    for wanted in inventory.wanted:
        click.echo(f"{wanted} …")
        try:
            standing = fetch_one(inventory, wanted, pin=pin)
        except ModelLoadError as error:
            click.echo(f"  {error}", err=True)
            failed += 1
        else:
            click.echo(f"  {standing.state}: {standing.folder}{_credit(standing)}")
    return EXIT_WRONG if failed else EXIT_OK


def fetch_one(inventory: ModelInventory, wanted: Wanted, *, pin: bool = False) -> ModelStatus:
    """Fetch a model and show its progress. Raises `ModelLoadError`."""
    config, lock_path, command = inventory.config, inventory.lock_path, inventory.command
    with DownloadBar(str(wanted)) as bar:
        return fetch(wanted, config, lock_path, inventory.hub, pin=pin, command=command, watcher=bar)


def ensure_models(inventory: ModelInventory) -> None:
    """Fetch the models that are missing, if a start may fetch (`fetches_at_start`).

    Raises:
        ModelLoadError: Models are missing or damaged, and could not or may not be fetched. Names all of them, and
            what to do.
    """
    faults = []
    for standing in [standing for standing in inventory.standings() if not usable(standing, inventory.config)]:
        if not inventory.fetches_at_start:
            faults.append(standing.sentence(inventory.command))
            continue
        Console().print(f"The {standing.wanted} is {standing.state}: fetching it", markup=False, soft_wrap=True)
        try:
            fetch_one(inventory, standing.wanted)
        except ModelLoadError as error:
            faults.append(str(error))
    if faults:
        raise ModelLoadError("; ".join(faults))


def verify_models(inventory: ModelInventory) -> int:
    """Compare every file with the lock; return 0 if the server would start with these models, else 1."""
    failed = 0
    for standing in inventory.standings():
        good = usable(standing, inventory.config)
        note = " (models.allow_unpinned lets it be used)" if good and standing.state is ModelState.UNPINNED else ""
        click.echo(f"{standing.sentence(inventory.command)}{note}{_credit(standing) if good else ''}", err=not good)
        failed += not good
    return EXIT_WRONG if failed else EXIT_OK


def list_models(inventory: ModelInventory) -> int:
    """Print a line per model: kind, name, revision, size, state, sources, licence; return the exit code."""
    rows = [("KIND", "NAME", "REVISION", "SIZE", "STATE", "FROM", "LICENCE")]
    for one in inventory.standings():
        size, state = _size(_bytes(one)), one.state.value
        rows.append((one.wanted.kind, one.wanted.name, _revision(one), size, state, _sources(one), _licence(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return EXIT_OK


def _revision(standing: ModelStatus) -> str:
    if not standing.wanted.is_repository:
        return "a folder"
    entry = standing.entry
    return entry.revision[:12] if entry and entry.revision else "not pinned"


def _sources(standing: ModelStatus) -> str:
    if not standing.wanted.is_repository:
        return "-"
    return ", ".join(sources(standing.entry)) if standing.entry else Source.HUB


def _licence(standing: ModelStatus) -> str:
    """Return the licence and the attribution."""
    entry = standing.entry
    return ", ".join(part for part in (entry.licence, entry.attribution) if part) if entry else ""


def _credit(standing: ModelStatus) -> str:
    licence = _licence(standing)
    return f" ({licence})" if licence else ""


def _bytes(standing: ModelStatus) -> int | None:
    """Return the size by the lock, else that of the files on this machine; None if neither is known."""
    entry, folder = standing.entry, standing.folder
    if entry is not None and entry.pinned:
        return entry.size_bytes
    if folder is None:
        return None
    return sum((folder / name).stat().st_size for name in needed(standing.wanted.kind, names_in(folder)))


def _size(size_bytes: int | None) -> str:
    """Return the size in decimal units, with three digits."""
    if size_bytes is None:
        return "?"
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(UNITS) - 1:  # noqa: PLR2004 - a kilo
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"
