"""The lock file: the revision of each model, and the digest of each of its files.

Knows the file's form and nothing of hubs or folders. An entry may be unpinned (without revision and files): it names a
model that is needed, and `ml-server models fetch --pin` adds the revision and the digests that it fetched.
"""

import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deployments.errors import ModelLoadError
from deployments.models.config import Kind

NAME = "models.lock.yaml"
HEADER = """\
# Which models the server uses, byte for byte. Made by `ml-server models fetch --pin --config CONFIG`, checked by
# `ml-server models verify` and by every replica that loads one. An entry without a revision is not pinned yet: the
# server refuses it (models.allow_unpinned, for laptops, does not). To move to a newer revision, delete the entry's
# `revision`, `files` and `packages` and pin again; commit this file. `packages` are wheels of the Python package index
# that hold the same bytes, with the members that make each file, in order. They are tried before the hub.
"""


class LockedFile(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class LockedPackage(BaseModel):
    """One wheel of the Python package index that holds files of a model, or parts of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Normalised: small letters, `-` between words."""
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the wheel."""
    size: int = Field(ge=0)
    files: dict[str, tuple[str, ...]]
    """The model's files with the members of the wheel that make them, in order. A file with parts in several packages
    is joined in the packages' order."""


class LockedModel(BaseModel):
    """One model: a repository of the hub, or a folder of the operator's, under the name that the config uses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    name: str = Field(min_length=1)
    licence: str = ""
    """Informative; `--pin` writes what the hub states."""
    attribution: str = ""
    """Attribution that the licence requires."""
    gated: bool = False
    """Whether the hub requires an account that has accepted its conditions."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit of the hub's repository; None for an unpinned model and for a folder."""
    files: dict[str, LockedFile] = {}
    """By path inside the model's folder, with `/`. Empty for an unpinned model."""
    packages: tuple[LockedPackage, ...] = ()
    """Python packages with the same bytes: a second source."""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, LockedFile]) -> dict[str, LockedFile]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
                raise ValueError(f"{name!r} is no path inside the model's folder")
        return files

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.revision and not self.files:
            raise ValueError(f"{self.name} has a revision, but no digests: pin it again")
        held = {name for package in self.packages for name in package.files}
        if self.packages and (self.revision is None or held != self.files.keys()):
            raise ValueError(f"{self.name} has packages that do not make its files: remove them, or pin what they make")
        return self

    @property
    def pinned(self) -> bool:
        """Whether the model's digests are known."""
        return bool(self.files)

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size for file in self.files.values())


class Lock(BaseModel):
    """The whole lock file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    models: tuple[LockedModel, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        keys = [(model.kind, model.name) for model in self.models]
        if double := {name for kind, name in keys if keys.count((kind, name)) > 1}:
            raise ValueError(f"more than one entry for {', '.join(sorted(double))}")
        return self

    def find(self, kind: Kind, name: str) -> LockedModel | None:
        """Return the entry of a model, if any."""
        return next((model for model in self.models if (model.kind, model.name) == (kind, name)), None)

    def replaced(self, entry: LockedModel) -> Self:
        """Return the lock with `entry` in place of the one with its kind and name, else at the end."""
        if self.find(entry.kind, entry.name) is None:
            return self.model_copy(update={"models": (*self.models, entry)})
        same = (entry.kind, entry.name)
        models = tuple(entry if (model.kind, model.name) == same else model for model in self.models)
        return self.model_copy(update={"models": models})


def default_path() -> Path:
    """Return `configs/models.lock.yaml` of the checkout, or its copy in the installed package."""
    root = Path(__file__).parents[2]
    here = root / "configs" / NAME
    return here if here.exists() else root / "serve_app" / "_configs" / NAME


def read(path: Path) -> Lock:
    """Read the lock file. Raises ModelLoadError where it is missing or is no lock."""
    try:
        return Lock.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelLoadError(f"the model lock {path} cannot be read: {error.strerror}") from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"the model lock {path} is damaged: {_first_line(error)}") from error


def write(path: Path, lock: Lock) -> None:
    """Replace the file atomically, so that a reader finds the old one or the new one."""
    content = {"version": lock.version, "models": [_plain(model) for model in lock.models]}
    text = HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text, mode=path.stat().st_mode & 0o777 if path.exists() else 0o644)


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Give a file this content, or leave it as it is and nothing beside it. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        new.chmod(mode)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _plain(model: LockedModel) -> dict[str, Any]:
    plain = model.model_dump(mode="json")
    plain["files"] = dict(sorted(plain["files"].items()))
    return {name: value for name, value in plain.items() if value or name not in {"attribution", "packages"}}


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".lstrip(": ")
    return re.sub(r"\s+", " ", str(error))
