"""The Ray Serve class of diarization."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ray import serve

from deployments import replica
from deployments.batch_backoff import BatchBackoff
from deployments.models.store import located

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.diarizer.config import DiarizerConfig, SpeakerCounts
    from deployments.diarizer.protocol import Embeddings, Segmentation
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Span, Turn

Answer = TypeVar("Answer")


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class Diarizer:
    """Finds who speaks when. Per piece `segment`, then `embed`; for all pieces together, `cluster`.

    Calls raise DeviceError where another replica may succeed: no memory for a single window, a dead device.
    """

    def __init__(self, config: DiarizerConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads)
        from deployments.diarizer.registry import create

        self._config = config
        self._engine = create(located(config, "diarizer", models))
        self._compute = replica.ComputeThread(longest_s=config.longest_call_s)
        self._backoff: BatchBackoff[Callable[[], Any], Any] = BatchBackoff(_run, max_batch=1, stage="diarizer")

    async def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Return the local speakers in the windows that start inside `piece` of the whole video's `audio`."""
        return await self._call(self._engine.segment, audio, piece)

    async def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Return the voices of the local speakers of `segmentation`."""
        return await self._call(self._engine.embed, audio, segmentation)

    async def cluster(
        self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings], **counts: Unpack[SpeakerCounts]
    ) -> list[Turn]:
        """Return the turns of the whole video, from all its pieces."""
        return await self._call(self._engine.cluster, segmentations, embeddings, **counts)

    async def _call(self, work: Callable[..., Answer], *args: Any, **options: Any) -> Answer:
        [answer] = await self._compute(self._backoff, [partial(work, *args, **options)])
        if isinstance(answer, Exception):
            raise answer
        found: Answer = answer
        return found

    async def check_health(self) -> None:
        """Raise where the device has failed or the pipeline did not load; Serve then replaces this replica."""
        self._backoff.check()
        await asyncio.to_thread(self._engine.check)

    def __repr__(self) -> str:
        return f"Diarizer({self._config.engine} on {self._config.device})"


def _run(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]
