"""The Ray Serve class of diarization."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from ray import serve

from deployments import replica
from deployments.batch_backoff import BatchBackoff
from deployments.models.store import located

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deployments.diarizer.config import DiarizerConfig, SpeakerCounts
    from deployments.diarizer.protocol import DiarizerEngine, Embeddings, Segmentation
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Span, Turn


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class Diarizer:
    """Finds who speaks when. Per piece `segment`, then `embed`; for all pieces together, `cluster`.

    Calls raise DeviceError where another replica may succeed: no memory for a single window, a dead device.
    """

    def __init__(self, config: DiarizerConfig, models: ModelsConfig) -> None:
        replica.prepare()
        self._config = config
        located(config, "diarizer", models)  # a missing model is told at the start, however late it is loaded
        load = partial(_load, config, models)
        self._engine = replica.LateEngine(load, at_first_call=config.load_at_first_call)
        self._compute = replica.ComputeThread(longest_s=config.longest_call_s)
        self._backoff: BatchBackoff[Callable[[], Any], Any] = BatchBackoff(_run, max_batch=1, stage="diarizer")

    async def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Return the local speakers in the windows that start inside `piece` of the whole video's `audio`."""
        found: Segmentation = await self._call("segment", audio, piece)
        return found

    async def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Return the voices of the local speakers of `segmentation`."""
        found: Embeddings = await self._call("embed", audio, segmentation)
        return found

    async def cluster(
        self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings], **counts: Unpack[SpeakerCounts]
    ) -> list[Turn]:
        """Return the turns of the whole video, from all its pieces."""
        found: list[Turn] = await self._call("cluster", segmentations, embeddings, **counts)
        return found

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        def work() -> Any:
            return getattr(self._engine.get(), method)(*args, **options)

        [answer] = await self._compute(self._backoff, [work])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check_health(self) -> None:
        """Raise where the device has failed or the pipeline did not load; Serve then replaces this replica."""
        self._backoff.check()
        self._engine.check()
        if self._engine.loaded is not None:
            await asyncio.to_thread(self._engine.loaded.check)

    def __repr__(self) -> str:
        return f"Diarizer({self._config.engine} on {self._config.device})"


def _run(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def _load(config: DiarizerConfig, models: ModelsConfig) -> DiarizerEngine:
    replica.prepare_torch(config.threads)
    from deployments.diarizer.registry import create

    return create(located(config, "diarizer", models))  # checked now: it is unpickled
