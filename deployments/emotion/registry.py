"""The emotion engines by the name that the config gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.emotion.config import EmotionConfig
    from deployments.emotion.protocol import EmotionEngine


def create(config: EmotionConfig) -> EmotionEngine:
    """Load the engine that `config` names. Raises ModelLoadError if the device or the model is missing or broken."""
    if config.engine == "wav2vec2":
        from deployments.device import require_device

        require_device("emotion.device", config.device)
        from deployments.emotion.classifier import ClassifierEngine

        return ClassifierEngine(config)
    from deployments.emotion.prosodic_lexical import ProsodicLexicalEngine

    return ProsodicLexicalEngine()
