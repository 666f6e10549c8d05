"""The models that a configuration names. Knows which engines need none; loads nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from deployments.models.config import Kind

EMBEDDED = frozenset({"cross-attention", "pyannote-ge2e", "prosodic-lexical"})
"""Engines whose models come with their packages."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SYSTRAN = "tiny.en tiny base.en base small.en small medium.en medium large-v1 large-v2 large-v3"
SIZES: Mapping[str, str] = {
    **{size: f"Systran/faster-whisper-{size}" for size in _SYSTRAN.split()},
    "large": "Systran/faster-whisper-large-v3",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}
"""Whisper's sizes as repositories: faster-whisper's own table (a test compares them)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model that a configuration names: a folder, or a repository of the hub."""

    kind: Kind
    name: str

    @classmethod
    def of(cls, kind: Kind, name: str) -> Wanted:
        """Create it with a Whisper size replaced by its repository."""
        return cls(kind=kind, name=SIZES.get(name, name) if kind == "asr" and not Path(name).is_dir() else name)

    @property
    def folder(self) -> Path | None:
        """The folder that the name refers to; None for a repository."""
        path = Path(self.name).expanduser()
        return path if path.is_dir() or self.name.startswith(("/", ".", "~")) else None

    @property
    def is_repository(self) -> bool:
        """Whether the name is a repository's."""
        return self.folder is None and _REPOSITORY.fullmatch(self.name) is not None

    def __str__(self) -> str:
        return f"{self.kind} model {self.name}"


def wanted_by(stages: Mapping[Kind, BaseModel]) -> tuple[Wanted, ...]:
    """Return the models that the stages' settings name, each once.

    A stage's settings have `engine`, and either `model` or `models` (by language). An engine that is not `EMBEDDED`
    uses them.
    """
    found: dict[Wanted, None] = {}
    for kind, config in stages.items():
        if getattr(config, "engine", None) in EMBEDDED:
            continue
        by_language: Mapping[str, str] = getattr(config, "models", None) or {}
        names = [*by_language.values()] if by_language else [getattr(config, "model", None)]
        found.update({Wanted.of(kind, name): None for name in names if name})
    return tuple(found)
