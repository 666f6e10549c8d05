"""The diarizers by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.device import require_device

if TYPE_CHECKING:
    from deployments.diarizer.config import DiarizerConfig
    from deployments.diarizer.protocol import DiarizerEngine


def create(config: DiarizerConfig) -> DiarizerEngine:
    """Load the engine that `config` names. Raises ModelLoadError if the device or a model is missing or broken."""
    require_device("diarizer.device", config.device)
    if config.engine == "pyannote":
        from deployments.diarizer.pretrained import PretrainedEngine

        return PretrainedEngine(config)
    from deployments.diarizer.pyannote_ge2e import PyannoteGE2EEngine

    return PyannoteGE2EEngine(config)
