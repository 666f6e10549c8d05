"""The aligner as a Ray Serve deployment; in the graph only where the config names acoustic models."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ray import serve

from deployments import logs, replica
from deployments.aligner.proportional import interpolated
from deployments.aligner.protocol import AlignItem
from deployments.aligner.registry import create
from deployments.batch_backoff import BatchBackoff
from deployments.batcher import Batcher
from deployments.device import release_memory
from deployments.errors import DeviceError, StuckError
from deployments.models.store import resolve
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from deployments.aligner.config import AlignerConfig
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Transcript

FAILED = ResultWarning(code=WarningCode.ALIGNMENT_FAILED)

log = logs.get_logger("aligner")


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class Aligner:
    """Gives times to the words of one chunk's transcript."""

    def __init__(self, config: AlignerConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads)
        self._config = config
        self._engine = create(config, locate=lambda name: str(resolve(name, "aligner", models)))
        self._ladder: BatchBackoff[AlignItem, Transcript] = BatchBackoff(
            self._engine.align,
            max_batch=config.batch_items,
            relieve=partial(release_memory, config.device),
            stage="aligner",
        )
        self._batcher: Batcher[AlignItem, Transcript] = Batcher(
            self._ladder,
            max_batch=config.batch_items,
            compute=replica.Compute(longest_s=config.longest_call_s),
            stage="aligner",
        )

    async def align(self, audio: Audio, transcript: Transcript, job_id: str, *, alone: bool = False) -> Transcript:
        """`transcript` with every word timed, but for text that was probably invented: that goes, with a warning.

        `audio` is the whole video's; jobs share batches fairly by `job_id`, but for what is to be aligned `alone`. What
        cannot be aligned gets interpolated times and a warning. Raises DeviceError where another replica may do better.
        """
        item = AlignItem(audio=audio, transcript=transcript)
        try:
            return await self._batcher(job_id, item, alone=alone)
        except (DeviceError, MemoryError, StuckError):
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, it must not cost the transcript
            reason = f"{type(error).__name__}: {error}"
            log.error("chunk not aligned", extra=logs.about(job_id, language=transcript.language, error=reason))  # noqa: TRY400  a line per chunk, no traceback
            return interpolated(transcript, FAILED)

    async def check_health(self) -> None:
        """Called by Serve: a replica whose device failed is replaced."""
        self._ladder.check()
        await asyncio.to_thread(self._engine.check)

    def __repr__(self) -> str:
        return f"Aligner({self._config.engine})"
