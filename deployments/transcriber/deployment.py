"""The recogniser as a Ray Serve deployment: one process, one loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray import serve

from deployments import logs, replica
from deployments.errors import TranscriptionError
from deployments.transcriber.config import TranscriberConfig, model_version
from deployments.transcriber.engine import Chunk, create

if TYPE_CHECKING:
    from deployments.types import Audio, Span, Transcript

log = logs.get_logger("transcriber")


@serve.deployment
class Transcriber:
    """Turns one chunk of a job's speech into words."""

    def __init__(self, config: TranscriberConfig) -> None:
        replica.prepare(threads=config.threads)
        self._config = config
        self._engine = create(config)
        self._compute = replica.Compute()

    async def transcribe(self, audio: Audio, chunk: Span, language: str) -> Transcript:
        """What is said in `chunk` of the whole video's `audio`; times count from the video's start.

        `language` is a code of `config.languages` or `auto`. Raises TranscriptionError; the cause is in the log.
        """
        item = Chunk(audio=chunk.of(audio), start_s=chunk.start_s, language=language)
        [answer] = await self._compute(self._engine.transcribe, [item])
        if isinstance(answer, Exception):
            log.error("chunk failed", exc_info=answer, extra={"chunk_start_s": chunk.start_s})
            raise TranscriptionError from answer
        return answer

    def __repr__(self) -> str:
        return f"Transcriber({model_version(self._config)})"
