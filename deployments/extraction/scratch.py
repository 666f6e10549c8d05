"""Where videos and audio are stored while a job needs them.

A video that is decoded lies in a `WorkDir` of this process. Extracted audio lies in `Scratch`, so that a restart need
not download it again: a folder, or any storage that fsspec reaches. There each job has a folder with an array (.npy)
per run and a description (.json) with its digest, which is written last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, unquote

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from deployments import logs
from deployments.errors import DISK_ERRORS, OutOfResourcesError
from deployments.extraction.protocol import AudioMissingError
from deployments.types import Audio, AudioInfo
from deployments.warnings import from_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deployments.warnings import ResultWarning

    RunId: TypeAlias = str | int
    """A run's token; its number for a run of the release before."""

BLOCK_BYTES = 4 << 20
PREFIX = "ecg-extract-"
_LOCK = ".lock"

_log = logs.get_logger("extraction.scratch")


class Scratch:
    """Stored audio by job and run."""

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._fs.makedirs(self._root, exist_ok=True)

    def __repr__(self) -> str:
        return f"Scratch({'local folder' if self._local else self._fs.protocol})"

    def save(
        self,
        job_id: str,
        run: RunId,
        audio: Audio,
        *,
        duration_s: float,
        warnings: tuple[ResultWarning, ...],
        channels: int = 1,
    ) -> AudioInfo:
        """Store `audio` and return its description. Raises OutOfResourcesError where the disk is full, or fails."""
        data = np.ascontiguousarray(audio).data.cast("B")
        info = AudioInfo(
            duration_s=duration_s,
            samples=len(audio),
            sha256=hashlib.sha256(data).hexdigest(),
            warnings=warnings,
            channels=channels,
        )
        with _disk():
            self._fs.makedirs(self._folder(job_id, run), exist_ok=True)
        with self._writing(self._path(job_id, run, "npy")) as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(audio))
            for start in range(0, len(data), BLOCK_BYTES):
                file.write(data[start : start + BLOCK_BYTES])
        with self._writing(self._path(job_id, run, "json")) as file:
            file.write(json.dumps(_note(info)).encode())
        return info

    def info(self, job_id: str, run: RunId) -> AudioInfo | None:
        """Read and check a run's audio and return its description; None where it is missing or damaged."""
        try:
            return self._read(job_id, run)[0]
        except AudioMissingError:
            return None

    def load(self, job_id: str, run: RunId) -> Audio:
        """Return the audio of a run, read-only. Raises AudioMissingError where it does not match its description."""
        return self._read(job_id, run)[1]

    def discard(self, job_id: str, run: RunId | None = None) -> None:
        """Delete the audio of a run, or of all runs of a job, if there is any."""
        if run is None:
            self.discard_folders((folder_name(job_id), job_id))
            return
        for kind in ("json", "npy"):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(self._path(job_id, run, kind))

    def folders(self) -> list[str]:
        """Return the names of the folders with stored audio: `folder_name` of each job."""
        self._fs.invalidate_cache()
        return sorted(unquote(str(path).rsplit("/", 1)[-1]) for path in self._fs.ls(self._root, detail=False))

    def discard_folders(self, names: Iterable[str]) -> None:
        """Delete folders with all that is in them, those that are there."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(f"{self._root}/{quote(name, safe='')}", recursive=True)

    def _read(self, job_id: str, run: RunId) -> tuple[AudioInfo, Audio]:
        try:
            with self._fs.open(self._path(job_id, run, "json"), "rb") as file:
                note: dict[str, Any] = json.loads(file.read())
            info = AudioInfo(**{**note, "warnings": tuple(map(from_mapping, note["warnings"]))})
            with self._fs.open(self._path(job_id, run, "npy"), "rb") as file:
                audio = _read_array(file, info.samples)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            raise AudioMissingError from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise AudioMissingError from None
        if hashlib.sha256(audio.data.cast("B")).hexdigest() != info.sha256:
            raise AudioMissingError
        audio.flags.writeable = False
        return info, audio

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file that appears whole or not at all; object stores guarantee that by themselves."""
        if not self._local:
            with self._fs.open(path, "wb") as file:
                yield file
            return
        unfinished = Path(f"{path}.{uuid.uuid4().hex}.tmp")
        try:
            with _disk():
                with unfinished.open("wb") as file:
                    yield file
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _folder(self, job_id: str, run: RunId) -> str:
        return f"{self._root}/{folder_name(job_id) if isinstance(run, str) else quote(job_id, safe='')}"

    def _path(self, job_id: str, run: RunId, kind: str) -> str:
        return f"{self._folder(job_id, run)}/{run}.{kind}"


def _note(info: AudioInfo) -> dict[str, Any]:
    """Return what is stored of `info`: the release before knows no channels, and none are apart in its jobs."""
    note = asdict(info)
    return note if info.channels > 1 else {name: note[name] for name in note if name != "channels"}


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Raise OutOfResourcesError in place of the error of a disk that is full, or fails; log that without the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _log.warning("audio not stored", extra={"error": os.strerror(error.errno)})
        raise OutOfResourcesError from None


def folder_name(job_id: str) -> str:
    """Return the name of a job's folder. No two jobs share it where upper and lower case are the same to the disk.

    A run of the release before, which is known by its number, lies in a folder with the job's own name.
    """
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]


def _read_array(file: IO[bytes], samples: int) -> Audio:
    """Read exactly `samples` int16 from an .npy file without a copy. Raises ValueError where it has another form."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not our array")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != (samples,) or dtype != np.int16:
        raise ValueError("not our array")
    audio = np.empty(samples, np.int16)
    room = audio.data.cast("B")
    filled = 0
    while filled < len(room):
        got = file.readinto(room[filled : filled + BLOCK_BYTES])  # type: ignore[attr-defined]
        if not got:
            raise ValueError("truncated")
        filled += got
    return audio


class WorkDir:
    """This process's folder for temporary files. It holds a file lock, which shows others that the process lives."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
        self._lock: int | None = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(parent / made.name.removeprefix("."))  # visible to others only once it is locked

    @contextlib.contextmanager
    def job(self) -> Iterator[Path]:
        """Create a folder for one job, and delete it afterwards. Raises OutOfResourcesError where the disk is full."""
        with _disk():
            folder = Path(tempfile.mkdtemp(dir=self.path))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Delete the folder with its contents. Once: afterwards the lock's descriptor may be another file's."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


def sweep(parent: Path) -> int:
    """Delete the folders under `parent` whose processes have ended, and return their number."""
    return sum(_remove_if_dead(folder) for folder in parent.glob(f"{PREFIX}*"))


def _remove_if_dead(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # not ours
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
