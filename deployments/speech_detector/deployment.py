"""The Ray Serve class of speech detection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ray import serve

from deployments import replica

if TYPE_CHECKING:
    from deployments.speech_detector.config import SpeechDetectorConfig
    from deployments.speech_detector.protocol import SpeechEngine
    from deployments.types import Audio, Span


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class SpeechDetector:
    """Finds the speech in a piece of a video."""

    def __init__(self, config: SpeechDetectorConfig) -> None:
        replica.prepare()
        self._config = config
        self._engine = replica.LateEngine(partial(_load, config), at_first_call=config.load_at_first_call)
        self._compute = replica.ComputeThread(longest_s=config.longest_call_s)

    async def detect(self, audio: Audio, piece: Span) -> list[Span]:
        """Return the speech inside `piece` of the whole video's `audio`. `chunks.join_spans` joins pieces."""
        return await self._compute(self._detect, audio, piece)

    def _detect(self, audio: Audio, piece: Span) -> list[Span]:
        return self._engine.get().detect(audio, piece)

    async def check_health(self) -> None:
        """Raise where the engine could not be loaded; Serve then replaces this replica."""
        self._engine.check()

    def __repr__(self) -> str:
        return f"SpeechDetector({self._config.engine} on {self._config.device})"


def _load(config: SpeechDetectorConfig) -> SpeechEngine:
    replica.prepare_torch(config.threads)
    from deployments.speech_detector.registry import create

    return create(config)
