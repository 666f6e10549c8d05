"""Disks that fill up or fail: by number of the write, for what Python writes; for real, on a small one of our own."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE_BYTES = 4096
CHANGES = ("mkdir", "open", "replace", "rename", "fsync")
"""Functions of `os` that a full or failing disk refuses, too."""


class FailingDisk:
    """Whatever is written below `folder`, made or renamed there is counted; from one on, all of it fails."""

    def __init__(self, folder: Path, *, fails_at: int, error: int) -> None:
        self._folder = folder.resolve()
        self._fails_at = fails_at
        self._error = error
        self.writes = 0

    def count(self) -> None:
        self.writes += 1
        if self.writes >= self._fails_at:
            raise OSError(self._error, os.strerror(self._error))

    def has(self, place: object) -> bool:
        if isinstance(place, int):
            return Path(f"/proc/self/fd/{place}").resolve().is_relative_to(self._folder)
        return isinstance(place, str | os.PathLike) and Path(place).resolve().is_relative_to(self._folder)

    def open(self, file: Any, mode: str = "r", *args: Any, opener: Any = None, **options: Any) -> Any:
        """As the built-in function, for files that are read, or lie elsewhere; else with writes that are counted."""
        if not set(mode) & set("wxa+") or not self.has(file):
            return OPEN(file, mode, *args, opener=opener, **options)
        raw = _CountedFile(file, mode.replace("b", "").replace("t", ""), opener=opener)
        raw.disk = self
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=options.get("encoding"))


class _CountedFile(io.FileIO):
    disk: FailingDisk

    def write(self, data: Any, /) -> int | None:
        self.disk.count()
        return super().write(data)


OPEN = builtins.open


@contextmanager
def failing_disk(folder: Path, *, fails_at: int, error: int) -> Iterator[FailingDisk]:
    """The `fails_at`-th write or change below `folder` fails, and so do all that follow."""
    disk = FailingDisk(folder, fails_at=fails_at, error=error)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(place: Any, *args: Any, **options: Any) -> Any:
            harmless = (real is REAL["open"] and not args[0] & os.O_CREAT) or (
                real is REAL["mkdir"] and Path(place).exists()
            )
            if not harmless and disk.has(place):
                disk.count()
            return real(place, *args, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, counted(REAL[name]))
        patch.setattr(builtins, "open", disk.open)
        patch.setattr(io, "open", disk.open)
        yield disk


REAL = {name: getattr(os, name) for name in CHANGES}


@contextmanager
def small_disk(folder: Path, *, size_bytes: int, files: int = 0) -> Iterator[Path]:
    """A file system of this size in memory, mounted at `folder`, with room for so many files (0: for any number).

    Skips where the system does not let us mount one.
    """
    folder.mkdir()
    options = f"size={size_bytes},nr_inodes={files and files + 1}"  # the folder itself is one
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no leave to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled_up(folder: Path, *, but_bytes: int = 0) -> Iterator[None]:
    """The disk has only so much room, until the context ends."""
    filler = folder / "filler"
    left = os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, left.f_bavail * left.f_frsize - but_bytes))
    yield
    filler.unlink()
