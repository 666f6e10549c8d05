"""The recognisers by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.transcriber.config import TranscriberConfig
    from deployments.transcriber.protocol import Recognizer


def create(config: TranscriberConfig, timed_elsewhere: frozenset[str] = frozenset()) -> Recognizer:
    """Load the engine that `config` names.

    `timed_elsewhere`: languages whose words the Aligner times, so that the recogniser leaves them untimed.
    Raises ModelLoadError where the device or the model is missing or broken.
    """
    from deployments.transcriber.whisper import WhisperRecognizer
    from deployments.transcriber.whisper_model import Whisper

    return WhisperRecognizer(Whisper(config), config.guard, timed_elsewhere)
