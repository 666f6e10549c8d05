"""The Ray Serve class of alignment; in the graph only where the config names acoustic models."""

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
    """Times the words of transcripts in batches across jobs."""

    def __init__(self, config: AlignerConfig, models: ModelsConfig) -> None:
        replica.prepare(threads=config.threads)
        self._config = config
        self._engine = create(config, locate=lambda name: str(resolve(name, "aligner", models)))
        self._backoff: BatchBackoff[AlignItem, Transcript] = BatchBackoff(
            self._engine.align,
            max_batch=config.batch_items,
            relieve=partial(release_memory, config.device),
            stage="aligner",
        )
        self._batcher: Batcher[AlignItem, Transcript] = Batcher(
            self._backoff,
            max_batch=config.batch_items,
            compute=replica.ComputeThread(longest_s=config.longest_call_s),
            stage="aligner",
        )

    async def align(self, audio: Audio, transcript: Transcript, job_id: str, *, alone: bool = False) -> Transcript:
        """Return `transcript` with all words timed; where alignment fails, interpolated times and a warning.

        `audio` is the whole video's. Jobs are served in turn; `alone`: in a batch of its own.

        Raises:
            DeviceError: The device failed; another replica may succeed.
            StuckError: The computation takes too long.
        """
        item = AlignItem(audio=audio, transcript=transcript)
        try:
            return await self._batcher(job_id, item, alone=alone)
        except (DeviceError, MemoryError, StuckError):
            raise
        except Exception as error:  # noqa: BLE001  no error of alignment fails the job
            reason = f"{type(error).__name__}: {error}"
            log.error("chunk not aligned", extra=logs.about(job_id, language=transcript.language, error=reason))  # noqa: TRY400  a line per chunk, no traceback
            return interpolated(transcript, FAILED)

    async def check_health(self) -> None:
        """Raise once the device has failed; Serve then replaces this replica."""
        self._backoff.check()
        await asyncio.to_thread(self._engine.check)

    def __repr__(self) -> str:
        return f"Aligner({self._config.engine})"
