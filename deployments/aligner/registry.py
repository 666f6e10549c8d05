"""The aligners by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.aligner.config import AlignerConfig
    from deployments.aligner.protocol import WordAligner


def create(config: AlignerConfig, locate: Callable[[str], str] = str) -> WordAligner:
    """Load the engine that `config` names. `locate` returns the folder of a model by its name, or raises.

    Raises ModelLoadError where the device is missing, or a model in `config.preload` cannot be loaded.
    """
    from deployments.aligner.ctc import CtcAligner

    return CtcAligner(config, locate)
