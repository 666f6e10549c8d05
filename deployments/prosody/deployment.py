"""The Ray Serve class of the prosody stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import replica

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.prosody.config import ProsodyConfig
    from deployments.types import Audio, Segment, Span, Tracks, WordProsody


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class ProsodyAnalyzer:
    """Measures pitch and level: tracks of the audio, piece by piece, then values per word."""

    def __init__(self, config: ProsodyConfig) -> None:
        from deployments.prosody.registry import create

        replica.prepare()  # no thread limit: nothing here uses torch, and the network is loaded with one thread
        self._config = config
        self._engine = create(config)
        self._compute = replica.ComputeThread(longest_s=config.longest_call_s)

    async def tracks(self, audio: Audio, piece: Span) -> Tracks:
        """Return pitch and level of `piece` of the whole video's `audio`: about 0.5 s of one core for a minute."""
        return await self._compute(self._engine.tracks, audio, piece)

    async def measure(self, tracks: Tracks, segments: Sequence[Segment]) -> list[tuple[WordProsody, ...]]:
        """Return for each segment one `WordProsody` per word."""
        from deployments.prosody.words import measure

        return await self._compute(measure, tracks, segments)

    def __repr__(self) -> str:
        return f"ProsodyAnalyzer({self._config.engine}, {self._config.f0_min_hz:g}-{self._config.f0_max_hz:g} Hz)"
