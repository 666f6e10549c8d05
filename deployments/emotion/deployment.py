"""The Ray Serve class of the emotion stage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments import replica
from deployments.batcher import Batcher
from deployments.emotion.config import EmotionConfig, model_version
from deployments.emotion.protocol import moods
from deployments.emotion.registry import create
from deployments.models.store import located

if TYPE_CHECKING:
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Emotion, Segment, Tracks

MOST_ITEMS = 500
"""Most items of one call."""


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class EmotionAnalyzer:
    """Finds the emotion of segments in batches across jobs."""

    def __init__(self, config: EmotionConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads if config.engine == "wav2vec2" else None)
        self._config = config
        self._engine = create(located(config, "emotion", models))
        self._batcher: Batcher[Any, Any] = Batcher(
            self._engine.judge,
            max_batch=MOST_ITEMS,
            weigh=self._engine.weight_s,
            max_weight=config.batch_s,
            compute=replica.ComputeThread(longest_s=config.longest_call_s),
            stage="emotion",
        )

    async def analyze(
        self, audio: Audio, tracks: Tracks | None, segments: list[Segment], job_id: str, *, alone: bool = False
    ) -> list[Emotion | None]:
        """Return an emotion per segment, in order; None where there is nothing to classify.

        `segments`: one of the `config.parts` of the video's segments. `tracks` may be None unless
        `config.needs_tracks`. Jobs are served in turn; `alone`: each item in a batch of its own. Raises DeviceError if
        the device failed, so that another replica may succeed, and StuckError if the computation takes too long.
        """
        cut = await asyncio.to_thread(self._engine.cut, audio, tracks, segments)
        answers = await self._batcher.all(job_id, [item for items in cut for item in items], alone=alone)
        return moods(self._engine, cut, answers)

    async def check_health(self) -> None:
        """Raise where the device is dead; Serve then replaces this replica."""
        await asyncio.to_thread(self._engine.check)

    def __repr__(self) -> str:
        return f"EmotionAnalyzer({model_version(self._config)})"
