"""The prosody engines by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.prosody.pitch import PitchRange
from deployments.prosody.tracks import LibrosaEngine

if TYPE_CHECKING:
    from deployments.prosody.config import ProsodyConfig
    from deployments.prosody.protocol import ProsodyEngine


def create(config: ProsodyConfig) -> ProsodyEngine:
    """Load the engine that `config` names, ready to run at full speed."""
    return LibrosaEngine(within=PitchRange(min_hz=config.f0_min_hz, max_hz=config.f0_max_hz))
