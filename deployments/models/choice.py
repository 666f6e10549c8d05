"""`engine: auto`: WhisperX where its models can be had, else the engines that need none. For laptops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deployments.errors import ModelLoadError
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from deployments.models.config import Kind
    from deployments.models.names import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which engines run, and why."""

    engine: Literal["whisperx", "embedded"]
    reason: str
    """For a line in the log that nobody overlooks."""

    @property
    def warning(self) -> ResultWarning | None:
        """For the result's `warnings`: its reader cannot know that a better engine was meant to run."""
        if self.engine == "whisperx":
            return None
        return ResultWarning(code=WarningCode.ENGINES_SMALL)


def choose(wanted: Iterable[Wanted], resolve: Callable[[str, Kind], Path]) -> Choice:
    """WhisperX where `resolve` finds every model of `wanted`.

    Args:
        wanted: The models of the production engines.
        resolve: `store.resolve` with its settings; raises `ModelLoadError` for a model that cannot be had.
    """
    for model in wanted:
        try:
            resolve(model.name, model.kind)
        except ModelLoadError as missing:
            return Choice(engine="embedded", reason=f"engine auto: the embedded engines run, because {missing}")
    return Choice(engine="whisperx", reason="engine auto: WhisperX runs, all its models are here")
