"""The Ray Serve class of diarization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import replica
from deployments.models.store import located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.diarizer.config import DiarizerConfig
    from deployments.diarizer.engine import Embeddings, Segmentation
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Span, Turn


@serve.deployment
class Diarizer:
    """Finds who speaks when. Per piece `segment`, then `embed`; for all pieces together, `cluster`."""

    def __init__(self, config: DiarizerConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads)
        from deployments.diarizer.engine import create

        self._config = config
        self._engine = create(located(config, "diarizer", models))
        self._compute = replica.Compute()

    async def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """The local speakers in the windows that start inside `piece` of the whole video's `audio`."""
        return await self._compute(self._engine.segment, audio, piece)

    async def embed(self, audio: Audio, segmentation: Segmentation) -> Embeddings:
        """What those speakers sound like."""
        return await self._compute(self._engine.embed, audio, segmentation)

    async def cluster(
        self,
        segmentations: Sequence[Segmentation],
        embeddings: Sequence[Embeddings],
        *,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        num_speakers: int | None = None,
    ) -> list[Turn]:
        """The video's turns, from all its pieces."""
        return await self._compute(
            self._engine.cluster,
            segmentations,
            embeddings,
            min_speakers=min_speakers,
            max_speakers=max_speakers,
            num_speakers=num_speakers,
        )

    def check_health(self) -> None:
        """Called by Serve: a replica whose pipeline did not load is replaced."""
        self._engine.check()

    def __repr__(self) -> str:
        return f"Diarizer({self._config.engine} on {self._config.device})"
