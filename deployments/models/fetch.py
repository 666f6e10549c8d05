"""Fetching and pinning, for `ml-server models fetch`: the only way in which digests come into the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.errors import ModelLoadError, ModelMissingError
from deployments.models import lock as locks
from deployments.models.digests import Digests, measured, names_in
from deployments.models.hub import NEWEST, needed
from deployments.models.lock import LockedModel
from deployments.models.store import FETCH, ModelState, Standing, stand, usable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deployments.models.config import ModelsConfig
    from deployments.models.hub import Hub
    from deployments.models.names import Wanted


def fetch(
    wanted: Wanted, config: ModelsConfig, lock_path: Path, hub: Hub, *, pin: bool, command: str = FETCH
) -> Standing:
    """Make one model usable: fetch its pinned revision, or, with `pin`, the newest one, whose digests enter the lock.

    A pinned entry never changes here. A folder of the operator's is only pinned. Without `pin`, an unpinned model is
    fetched where `config.allow_unpinned` lets it be used.

    `command` is what the operator typed, for the sentences of errors.

    Raises:
        ModelMissingError: Neither pinned, nor to be pinned; or still not whole afterwards.
        ModelLoadError: The hub refuses, or what came is not what the hub says it has.
    """
    lock = locks.read(lock_path)
    standing = stand(wanted, lock, config, hub)
    if standing.state is ModelState.OK:
        return standing
    entry = standing.entry
    if entry is not None and entry.pinned:
        _fetch_again(standing, entry, hub)
    elif pin:
        locks.write(lock_path, lock.replaced(_pinned(standing, config, hub)))
    elif wanted.is_repository and config.allow_unpinned:
        hub.download(wanted.name, NEWEST, needed(wanted.kind, hub.look_up(wanted.name).files))
    standing = stand(wanted, locks.read(lock_path), config, hub)
    if not usable(standing, config):
        raise ModelMissingError(standing.sentence(command))
    return standing


def _fetch_again(standing: Standing, entry: LockedModel, hub: Hub) -> None:
    if entry.revision is not None:
        damaged = standing.problems.keys() & entry.files.keys()
        hub.download(entry.name, entry.revision, entry.files, again=damaged)


def _pinned(standing: Standing, config: ModelsConfig, hub: Hub) -> LockedModel:
    """The lock's entry for what lies in the operator's folder, or for the newest revision that the hub has."""
    wanted = standing.wanted
    digests = Digests(config.memory_dir)
    before = standing.entry or LockedModel(kind=wanted.kind, name=wanted.name)
    if not wanted.is_repository:
        if standing.folder is None:
            raise ModelMissingError(standing.sentence())
        return _with_files(before, standing.folder, needed(wanted.kind, names_in(standing.folder)), digests)
    newest = hub.look_up(wanted.name)
    folder = hub.download(wanted.name, newest.revision, names := needed(wanted.kind, newest.files))
    entry = _with_files(before, folder, names, digests)
    for name, file in entry.files.items():
        if newest.files[name] not in (None, file.sha256):
            raise ModelLoadError(f"{name} of {wanted.name} is not what the hub says it has: fetch it again")
    stated = {"revision": newest.revision, "licence": newest.licence or before.licence, "gated": newest.gated}
    return LockedModel.model_validate(entry.model_dump() | stated)


def _with_files(entry: LockedModel, folder: Path, names: Iterable[str], digests: Digests) -> LockedModel:
    files = measured(folder, names, digests)
    if not files:
        raise ModelLoadError(f"the {entry.kind} model {entry.name} has no file that a loader would read")
    return entry.model_copy(update={"files": files})
