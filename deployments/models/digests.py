"""Digests of files, and how a folder's files differ from what they should be. Knows nothing of hubs or settings.

A large model takes seconds to read, so digests are remembered by the file's path, size, times and number: whoever
changes a file changes those (the change time cannot be set back). What is remembered lies in the server's own state
directory, not beside the models: who may write there need not be able to forge it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.models.lock import LockedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEMORY = "ml-server-digests.json"
HALF = ".incomplete"
"""How the hub's library names what it has not downloaded wholly."""


class Digests:
    """SHA-256 of files, remembered in `folder`; where that cannot be written, they are computed each time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder.expanduser() / MEMORY
        self._known: dict[str, list[object]] = self._remembered()
        self._new: dict[str, list[object]] = {}

    def of(self, path: Path) -> str:
        """The digest of the file that `path` leads to, in hex."""
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
        """Remember what was computed. Processes that do so at once lose at most each other's work."""
        if not self._new:
            return
        content = json.dumps(self._remembered() | self._new)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self._path.parent, delete=False) as new:
                new.write(content)
            Path(new.name).replace(self._path)
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
    """What is wrong with each of these files, by name; empty where all are as they should be."""
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
    """Whether a download of the file began: beside it, or in the hub library's cache, by the digest of large files."""
    beside = path.with_name(path.name + HALF)
    blob = next((parent.parent / "blobs" for parent in path.parents if parent.name == "snapshots"), None)
    return beside.exists() or (blob is not None and (blob / (file.sha256 + HALF)).exists())


def measured(folder: Path, names: Iterable[str], digests: Digests) -> dict[str, LockedFile]:
    """Size and digest of these files."""
    files = {name: LockedFile(sha256=digests.of(folder / name), size=(folder / name).stat().st_size) for name in names}
    digests.save()
    return files


def names_in(folder: Path) -> set[str]:
    """All files below a folder, by their path in it, with `/`."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
