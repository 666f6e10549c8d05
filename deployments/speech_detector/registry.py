"""The speech detectors by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.device import require_device
from deployments.speech_detector.pyannote_segmentation import PyannoteSpeechEngine

if TYPE_CHECKING:
    from deployments.speech_detector.config import SpeechDetectorConfig
    from deployments.speech_detector.protocol import SpeechEngine


def create(config: SpeechDetectorConfig) -> SpeechEngine:
    """Load the engine that `config` names. Raises ModelLoadError if the device is missing."""
    require_device("speech_detector.device", config.device)
    return PyannoteSpeechEngine(config)
