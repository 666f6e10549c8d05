"""The aligner as a Ray Serve deployment; in the graph only where the recogniser has no word times of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import replica
from deployments.aligner.engine import create

if TYPE_CHECKING:
    from deployments.aligner.config import AlignerConfig
    from deployments.types import Audio, Transcript


@serve.deployment
class Aligner:
    """Gives times to the words of one chunk's transcript."""

    def __init__(self, config: AlignerConfig) -> None:
        replica.prepare()
        self._config = config
        self._engine = create(config)
        self._compute = replica.Compute()

    async def align(self, audio: Audio, transcript: Transcript) -> Transcript:
        """`transcript` with every word timed. `audio` is the whole video's."""
        return await self._compute(self._engine.align, audio, transcript)

    def __repr__(self) -> str:
        return f"Aligner({self._config.engine})"
