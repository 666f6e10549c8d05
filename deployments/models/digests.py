"""Digests of files, and the differences of a folder's files from the lock. Knows nothing of hubs or settings.

A large model takes seconds to read, so digests are cached by the file's path, size, times and inode: a change of the
file changes those (the change time cannot be set back). The cache is in the server's state folder, not beside the
models, so that write access to the models is not enough to forge it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from deployments.models.lock import LockedFile, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MEMORY = "ml-server-digests.json"
HALF = ".incomplete"
"""Suffix of the hub library's incomplete downloads."""


class Digests:
    """SHA-256 digests of files, cached in `folder`. If that is not writable, they are computed each time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.expanduser() / MEMORY
        self._known: dict[str, list[object]] = self._remembered()
        self._new: dict[str, list[object]] = {}

    def of(self, path: Path) -> str:
        """Return the digest of the file that `path` resolves to, in hex."""
        real = path.resolve()
        key, stamp = str(real), _stamp(real)
        known = self._known.get(key)
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        with real.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if stamp == _stamp(real):
            self._known[key] = self._new[key] = [*stamp, digest]
        return digest

    def save(self) -> None:
        """Write new digests to the cache. Concurrent processes may overwrite each other's additions."""
        if not self._new:
            return
        content = json.dumps(self._remembered() | self._new)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path, content, mode=0o600)
        except OSError:
            return
        self._new.clear()

    def _remembered(self) -> dict[str, list[object]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        return {path: known for path, known in content.items() if isinstance(known, list)}


def _stamp(path: Path) -> list[object]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def differences(folder: Path, files: Mapping[str, LockedFile], digests: Digests) -> dict[str, str]:
    """Return by name what is wrong with each of these files; empty if nothing is."""
    found = {name: wrong for name, file in files.items() if (wrong := _wrong(folder / name, file, digests))}
    digests.save()
    return found


def _wrong(path: Path, file: LockedFile, digests: Digests) -> str | None:
    if not path.is_file():
        return "is not completely downloaded" if _half(path, file) else "is missing"
    size = path.stat().st_size
    if size != file.size:
        return f"is altered, with {size} bytes in place of {file.size}"
    if digests.of(path) != file.sha256:
        return "is altered, with another SHA-256"
    return None


def _half(path: Path, file: LockedFile) -> bool:
    """Return whether the file's download is incomplete: beside it, or by its digest in the hub library's cache."""
    beside = path.with_name(path.name + HALF)
    blob = next((parent.parent / "blobs" for parent in path.parents if parent.name == "snapshots"), None)
    return beside.exists() or (blob is not None and (blob / (file.sha256 + HALF)).exists())


def measured(folder: Path, names: Iterable[str], digests: Digests) -> dict[str, LockedFile]:
    """Return size and digest of these files."""
    files = {name: LockedFile(sha256=digests.of(folder / name), size=(folder / name).stat().st_size) for name in names}
    digests.save()
    return files


def names_in(folder: Path) -> set[str]:
    """Return the paths, with `/`, of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
