"""What a GPU machine without pyannote lacks for `tests.benchmarks.gpu`, in one file that is small enough to travel.

    python -m tests.benchmarks.gpu_carry [--python 3.12] [--target build/gpu-site.tar.xz]

The machine has torch, torchaudio and transformers, and reaches no package index. This downloads the wheels of all that
pyannote.audio needs besides, in this environment's versions, and packs them without their tests. There:

    mkdir site && tar -xJf build/gpu-site.tar.xz -C site && PYTHONPATH=site python -m tests.benchmarks.gpu

CTranslate2 is left out (its wheel wants CUDA 12's libraries), and librosa (numba's compiler is too large), so that
transcription and prosody are rows that say so. Prints what it takes; exits with 1 where that and the repository are
over 64 MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT: Final = Path(__file__).parents[2]
THERE: Final = ("torch", "torchaudio", "transformers", "pip")
"""What the machine has, with all that they need."""
WANTED: Final = ("pyannote.audio", "pydantic-settings", "pyyaml", "soundfile", "sqlalchemy")
IN_ANY_CASE: Final = ("requests",)
"""Not every transformers brings it."""
NOT_IMPORTED: Final = {"alembic", "grpcio", "pytorch-lightning", "torchcodec"}
"""What pyannote.audio names and goes without here: storage of trials, export of traces by gRPC, decoding of files."""
PLATFORMS: Final = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64", "any")
MOST_BYTES: Final = 64 << 20
LEFT_OUT: Final = {"tests", "test", "__pycache__"}
"""Folders that nothing imports here."""


def needed(wanted: Iterable[str] = WANTED, there: Iterable[str] = THERE) -> dict[str, str]:
    """Return the distributions that `wanted` need beyond those of `there`, with the versions of this environment."""
    missing = _closure(wanted) - _closure(there) - NOT_IMPORTED | _closure(IN_ANY_CASE)
    return {name: distribution(name).version for name in sorted(missing)}


def _closure(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform, or for an extra
            continue
        found.add(name)
        requirements = (Requirement(each) for each in requires)
        left += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def download(versions: dict[str, str], python: str, folder: Path) -> None:
    """Download the wheels for that Python on Linux. Raises CalledProcessError where there is none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", python, "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *(f"{name}=={version}" for name, version in versions.items())], check=True)


def pack(wheels: Path, target: Path) -> None:
    """Write what the wheels of a folder install to one archive, without what nothing imports."""
    with tempfile.TemporaryDirectory() as site, tarfile.open(target, "w:xz") as archive:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as content:
                for name in content.namelist():
                    if not LEFT_OUT & set(Path(name).parts[:-1]):
                        content.extract(name, site)
        archive.add(site, arcname=".")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_carry")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="its version")
    parser.add_argument("--target", type=Path, default=ROOT / "build" / "gpu-site.tar.xz")
    options = parser.parse_args()
    options.target.parent.mkdir(parents=True, exist_ok=True)
    versions = needed()
    with tempfile.TemporaryDirectory() as folder:
        download(versions, options.python, Path(folder))
        pack(Path(folder), options.target)
    tree = len(
        subprocess.run(["git", "archive", "--format=tar.gz", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    )
    size = options.target.stat().st_size
    print(f"{options.target}: {size / 2**20:.1f} MiB, {len(versions)} packages; the repository: {tree / 2**20:.1f} MiB")
    if size + tree > MOST_BYTES:
        raise SystemExit(f"together over {MOST_BYTES >> 20} MiB")


if __name__ == "__main__":
    main()
