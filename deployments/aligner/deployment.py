"""The aligner as a Ray Serve deployment; in the graph only where the recogniser has no word times of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import logs, replica
from deployments.aligner.engine import AlignItem, create
from deployments.aligner.proportional import interpolated

if TYPE_CHECKING:
    from deployments.aligner.config import AlignerConfig
    from deployments.types import Audio, Transcript

FAILED = "alignment failed: word times are interpolated"

log = logs.get_logger("aligner")


@serve.deployment
class Aligner:
    """Gives times to the words of one chunk's transcript."""

    def __init__(self, config: AlignerConfig) -> None:
        replica.prepare(threads=config.threads if config.engine == "ctc" else None)
        self._config = config
        self._engine = create(config)
        self._compute = replica.Compute()

    async def align(self, audio: Audio, transcript: Transcript, job_id: str) -> Transcript:
        """`transcript` with every word timed. `audio` is the whole video's; jobs share batches fairly by `job_id`."""
        answer = await self._answer(job_id, AlignItem(audio=audio, transcript=transcript))
        if isinstance(answer, Exception):
            log.error("chunk failed", exc_info=answer, extra={"language": transcript.language})
            return interpolated(transcript, FAILED)
        return answer

    async def _answer(self, job_id: str, item: AlignItem) -> Transcript | Exception:  # noqa: ARG002  the batcher's
        """One item's answer. The items of several jobs can become one call of the engine here."""
        [answer] = await self._compute(self._engine.align, [item])
        return answer

    def __repr__(self) -> str:
        return f"Aligner({self._config.engine})"
