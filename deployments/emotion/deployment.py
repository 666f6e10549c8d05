"""The emotion analyser as a Ray Serve deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import replica
from deployments.emotion.config import EmotionConfig, model_version
from deployments.emotion.engine import create
from deployments.models.store import located

if TYPE_CHECKING:
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Emotion, Segment, Tracks


@serve.deployment
class EmotionAnalyzer:
    """Judges the mood of a job's segments, all of them in one call, which lets other jobs between its parts."""

    def __init__(self, config: EmotionConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads if config.engine == "wav2vec2" else None)
        self._config = config
        self._engine = create(located(config, "emotion", models))
        self._compute = replica.Compute()

    async def analyze(self, audio: Audio, tracks: Tracks, segments: list[Segment]) -> list[Emotion | None]:
        """One judgement per segment, in order; None where there is nothing to judge by."""
        emotions: list[Emotion | None] = []
        for part in self._engine.parts(segments):
            emotions += await self._compute(self._engine.analyze, audio, tracks, part)
        return emotions

    def check_health(self) -> None:
        """Called by Serve: a replica whose device is dead is replaced."""
        self._engine.check()

    def __repr__(self) -> str:
        return f"EmotionAnalyzer({model_version(self._config)})"
