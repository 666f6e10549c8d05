"""Finds a model's folder on this machine by name, and checks its files. Knows nothing of what models compute.

    name ─ a configured folder ──────────────────────┐
         └ a repository: its pinned revision in the  ├─ every file as the lock says ─▸ Path
           hub library's cache, whatever its source ─┘

Both are compared with the lock, since weights can hold code (pyannote unpickles them). Models that are not in the lock
are refused unless `models.allow_unpinned`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deployments import logs
from deployments.errors import ModelMissingError
from deployments.models import lock as locks
from deployments.models.digests import Digests, differences, names_in
from deployments.models.hub import NEWEST, HuggingFace, go_offline, needed
from deployments.models.names import EMBEDDED, Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from deployments.models.config import Kind, ModelsConfig
    from deployments.models.hub import Hub
    from deployments.models.lock import Lock, LockedModel

FETCH = "ml-server models fetch --config CONFIG"
"""The remedy in errors of processes that do not know their config file."""

UNKNOWN_FILE = "is not in the lock, but a loader may read it: remove it"

log = logs.get_logger("models")


class ModelState(StrEnum):
    """The state of a model on this machine."""

    OK = "ok"
    """Present, and every file matches the lock."""
    UNPINNED = "not pinned"
    """Present, but the lock has no digests to compare."""
    MISSING = "missing"
    """Not present."""
    DAMAGED = "damaged"
    """Present, but files are missing, incomplete, altered or not in the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """The state of one model and its problems."""

    wanted: Wanted
    state: ModelState
    entry: LockedModel | None
    """The model's entry in the lock, if any."""
    folder: Path | None
    """The model's folder, if any."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with files, by name."""

    def sentence(self, command: str = FETCH) -> str:
        """Return what is wrong, with the command that repairs it. Names no folder except a configured one."""
        subject = f"the {self.wanted}"
        if self.state is ModelState.MISSING:
            return f"{subject} is missing: {self._remedy(command)}"
        if self.state is ModelState.UNPINNED:
            return f"{subject} is not pinned in the model lock: pin it with `{command} --pin`"
        if self.state is ModelState.DAMAGED:
            wrong = "; ".join(f"{name} {problem}" for name, problem in self.problems.items())
            return f"{subject} is damaged ({wrong}): {self._remedy(command)}"
        return f"{subject} is as the lock says"

    def _remedy(self, command: str) -> str:
        if self.wanted.folder is not None:
            return "it is a folder of your own: put it in order there"
        if not self.wanted.is_repository:
            return "it is neither a folder nor the name of a repository"
        pin = "" if self.entry is not None and self.entry.pinned else " --pin"
        return f"fetch it with `{command}{pin}`"


def resolve(name: str, kind: Kind, config: ModelsConfig, *, hub: Hub | None = None) -> Path:
    """Return the local folder of a model, the only place to load it from.

    From now on no library of this process connects to a hub: ten replicas that start at once must not fetch a model ten
    times. Only the command line fetches (`fetch.py`). `name`: a folder, a repository, or one of Whisper's sizes.

    Raises:
        ModelMissingError: The model is missing, damaged or not pinned; the message has the command that repairs it.
        ModelLoadError: The lock cannot be read.
    """
    go_offline()
    hub = hub or hub_of(config)
    lock = read_lock(config)
    standing = stand(Wanted.of(kind, name), lock, config, hub)
    if standing.folder is None or not usable(standing, config):
        raise ModelMissingError(standing.sentence())
    if standing.state is ModelState.UNPINNED:
        shown = Path(name).name if Path(name).is_absolute() else name  # logs hold no folders of the server
        log.warning("a model that is not pinned is used", extra={"model": shown, "kind": kind})
    return standing.folder


Stage = TypeVar("Stage", bound="BaseModel")


def located(stage: Stage, kind: Kind, config: ModelsConfig) -> Stage:
    """Return a stage's settings with the model's name replaced by its folder, unless the engine needs no model.

    Raises what `resolve` raises.
    """
    if getattr(stage, "engine", None) in EMBEDDED:
        return stage
    return stage.model_copy(update={"model": str(resolve(getattr(stage, "model", ""), kind, config))})


def usable(standing: ModelStatus, config: ModelsConfig) -> bool:
    """Return whether the settings allow this model to be loaded."""
    return standing.state is ModelState.OK or (standing.state is ModelState.UNPINNED and config.allow_unpinned)


def stand(wanted: Wanted, lock: Lock, config: ModelsConfig, hub: Hub) -> ModelStatus:
    """Return the state of a model on this machine, without connecting and without changes."""
    entry = lock.find(wanted.kind, wanted.name)
    folder = _folder(wanted, entry, hub)
    if folder is None:
        return ModelStatus(wanted=wanted, state=ModelState.MISSING, entry=entry, folder=None)
    if entry is None or not entry.pinned:
        return ModelStatus(wanted=wanted, state=ModelState.UNPINNED, entry=entry, folder=folder)
    wrong = differences(folder, entry.files, Digests(config.memory_dir))
    strangers = set(needed(wanted.kind, names_in(folder) | entry.files.keys())) - entry.files.keys()
    wrong |= dict.fromkeys(sorted(strangers), UNKNOWN_FILE)
    state = ModelState.DAMAGED if wrong else ModelState.OK
    return ModelStatus(wanted=wanted, state=state, entry=entry, folder=folder, problems=wrong)


def _folder(wanted: Wanted, entry: LockedModel | None, hub: Hub) -> Path | None:
    if (own := wanted.folder) is not None:
        return own.absolute() if own.is_dir() else None
    revision = entry.revision if entry and entry.revision else NEWEST
    return hub.folder(wanted.name, revision) if wanted.is_repository else None


def hub_of(config: ModelsConfig) -> HuggingFace:
    """Return the Hugging Face hub with the settings' cache and token."""
    token = config.hf_token.get_secret_value() if config.hf_token else None
    return HuggingFace(cache_dir=config.cache_dir, token=token)


def read_lock(config: ModelsConfig) -> Lock:
    """Read the settings' lock file. Raises `ModelLoadError`."""
    return locks.read(config.lock.expanduser() if config.lock else locks.default_path())
