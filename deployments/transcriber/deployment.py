"""The Ray Serve class of speech recognition: one loaded model per process, batches across jobs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments import logs, replica
from deployments.aligner.config import timed_by_ctc
from deployments.batch_backoff import BatchBackoff
from deployments.batcher import Batcher
from deployments.errors import DeviceError, StuckError, TranscriptionError
from deployments.models.store import located
from deployments.speech_detector.chunks import speech_share
from deployments.transcriber.config import TranscriberConfig, model_version
from deployments.transcriber.protocol import AUTO, Chunk, Question, answer
from deployments.transcriber.registry import create

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.aligner.config import AlignerConfig
    from deployments.models.config import ModelsConfig
    from deployments.types import Audio, Span, Transcript

log = logs.get_logger("transcriber")


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class Transcriber:
    """Transcribes chunks of speech in batches across jobs."""

    def __init__(self, config: TranscriberConfig, models: ModelsConfig, aligner: AlignerConfig) -> None:
        """`aligner`: its languages are timed by the Aligner, the words of all others here."""
        replica.prepare()
        self._config = config
        engine = create(located(config, "asr", models), timed_by_ctc(aligner))
        self._backoff = BatchBackoff(partial(answer, engine), max_batch=config.batch_size, stage="transcriber")
        compute = replica.ComputeThread(longest_s=config.longest_call_s)
        self._batcher = Batcher(self._backoff, max_batch=config.batch_size, compute=compute, stage="transcriber")

    async def transcribe(
        self,
        audio: Audio,
        chunk: Span,
        language: str,
        job_id: str,
        speech: Sequence[Span] | None = None,
        *,
        vocabulary: Sequence[str] = (),
        alone: bool = False,
    ) -> Transcript:
        """Transcribe `chunk` of the whole video's `audio`. Times are seconds from the video's start.

        `language`: a code of `config.languages`, or `auto`. `speech`: the detected speech inside the chunk; None where
        it is not known. `vocabulary`: names and terms that may be said. Words have times, except those of languages
        that the Aligner times. Jobs are served in turn; `alone`: in a batch of its own.

        Raises:
            TranscriptionError: The engine failed; the log has the cause.
            DeviceError: The device failed; another replica may succeed.
            StuckError: The computation takes too long.
        """
        piece = Chunk(
            audio=chunk.of(audio),
            start_s=chunk.start_s,
            language=language,
            speech_share=1.0 if speech is None else speech_share(chunk, speech),
            speech=None if speech is None else tuple(speech),
            vocabulary=tuple(vocabulary),
        )
        transcript: Transcript = await self._answer(job_id, Question(chunk=piece), alone=alone)
        return transcript

    async def detect_language(
        self, audio: Audio, chunk: Span, job_id: str, *, brief: bool = False, alone: bool = False
    ) -> dict[str, float]:
        """Return the probability of each language in `chunk` of `audio`; empty where the engine cannot detect it.

        `brief`: see `Recognizer.detect`. Raises what `transcribe` raises. `passages.vote` combines several chunks.
        """
        piece = Chunk(audio=chunk.of(audio), start_s=chunk.start_s, language=AUTO)
        question = Question(chunk=piece, language_only=True, brief=brief)
        probabilities: dict[str, float] = await self._answer(job_id, question, alone=alone)
        return probabilities

    async def _answer(self, job_id: str, question: Question, *, alone: bool) -> Any:
        try:
            return await self._batcher(job_id, question, alone=alone)
        except Exception as error:
            start_s = question.chunk.start_s
            log.error("chunk failed", exc_info=error, extra=logs.about(job_id, chunk_start_s=start_s))  # noqa: TRY400  its own record, not the handler's
            if isinstance(error, (DeviceError, StuckError)):
                raise
            raise TranscriptionError from error

    def check_health(self) -> None:
        """Raise DeviceError once the device has failed; Serve then replaces this replica."""
        self._backoff.check()

    def __repr__(self) -> str:
        return f"Transcriber({model_version(self._config)})"
