"""The stages of the graph as one job calls them: a typed method per call, and the reference to the job's audio."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deployments import logs
from deployments.extraction.protocol import AudioMissingError
from deployments.transcriber.protocol import AUTO
from serve_app.observability.tracing import UNTRACED
from serve_app.pipeline.stage_calls import StageCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ray.actor import ActorHandle
    from ray.serve.handle import DeploymentHandle

    from deployments.diarizer.protocol import Embeddings, Segmentation
    from deployments.transcriber.passages import Passage
    from deployments.types import AudioInfo, Emotion, Segment, Span, Tracks, Transcript, Turn, WordProsody
    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Trace


log = logs.get_logger("calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageHandles:
    """The handles of the graph's deployments. `aligner` is None where the recogniser times all words itself.

    `cpu` has the handles of the CPU pool, by the names of the fields here; None where there is no pool.
    """

    extractor: DeploymentHandle[Any]
    detector: DeploymentHandle[Any]
    transcriber: DeploymentHandle[Any]
    aligner: DeploymentHandle[Any] | None
    diarizer: DeploymentHandle[Any]
    prosody: DeploymentHandle[Any]
    emotion: DeploymentHandle[Any]
    cpu: Mapping[str, Any] | None = None

    def on(self, *, enable_gpu: bool) -> StageHandles:
        """Return what a job calls: the CPU pool's where it wants no GPU and there is a pool. As `Settings.on` does."""
        return self if enable_gpu or self.cpu is None else replace(self, **self.cpu)


class StageClient:
    """Calls the stages for one job. Each method waits for one of the job's slots and raises as `StageCalls.call` does.

    The samples do not pass through this process: stages get a reference to the array in the object store, and the
    span to work on. The object belongs to this process and is loaded again when it was lost.
    """

    def __init__(
        self,
        job: Job,
        handles: StageHandles,
        *,
        reporter: ActorHandle[Any] | None = None,
        isolation: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        trace: Trace = UNTRACED,
    ) -> None:
        """`reporter` is the actor whose `report_progress` the extractor calls; `isolation`: see `StageCalls`."""
        self._job = job
        self._handles = handles.on(enable_gpu=job.options.enable_gpu)
        self._reporter = reporter
        self._calls = StageCalls(job.job_id, job.options.max_workers, isolation, trace)
        self.map = self._calls.map
        self._audio: Any = None
        self._extracting = asyncio.Lock()
        self._extractions = 0

    async def extract(self) -> AudioInfo:
        """Download the video and decode its audio, unless the extractor still has it, and load it."""
        job = self._job
        language = job.options.asked_language
        asked = () if language == AUTO else (language,)  # the release before takes none
        info: AudioInfo = await self._call(
            "extractor.prepare",
            self._handles.extractor.prepare,
            job.job_id,
            job.run_id,
            job.video_url,
            self._reporter,
            *asked,
            **job.options.selection,
        )
        if not hasattr(info, "channels"):  # an extractor of the release before has sent it, which knows no channels
            object.__setattr__(info, "channels", 1)
        self._load_audio()
        self._extractions += 1
        return info

    def detect_speech(self, piece: Span) -> Awaitable[list[Span]]:
        """Return where somebody speaks inside `piece`."""
        return self._call_on_audio("detector.detect", self._handles.detector.detect, piece)

    def detect_language(self, span: Span, *, brief: bool) -> Awaitable[dict[str, float]]:
        """Return the probability of each language in `span`, none if unknown. `brief`: by the first seconds only."""
        return self._call_on_audio(
            "transcriber.detect_language",
            self._handles.transcriber.detect_language,
            span,
            self._job.job_id,
            brief=brief,
        )

    def transcribe(self, chunk: Passage, speech: Sequence[Span]) -> Awaitable[Transcript]:
        """Return the text of `chunk` in the chunk's language. `speech` is what was detected inside the chunk."""
        vocabulary = self._job.options.vocabulary
        known = {"vocabulary": vocabulary} if vocabulary else {}  # the release before takes none
        return self._call_on_audio(
            "transcriber.transcribe",
            self._handles.transcriber.transcribe,
            chunk,
            chunk.language,
            self._job.job_id,
            speech,
            **known,
        )

    async def align(self, transcript: Transcript) -> Transcript:
        """Return `transcript` with all words timed; as it is where the graph has no aligner."""
        if self._handles.aligner is not None:
            transcript = await self._call_on_audio(
                "aligner.align", self._handles.aligner.align, transcript, self._job.job_id
            )
        return transcript

    def segment(self, piece: Span) -> Awaitable[Segmentation]:
        """Return the local speakers in the windows that start inside `piece`."""
        return self._call_on_audio("diarizer.segment", self._handles.diarizer.segment, piece)

    def embed(self, segmentation: Segmentation) -> Awaitable[Embeddings]:
        """Return the voices of the local speakers of `segmentation`."""
        return self._call_on_audio("diarizer.embed", self._handles.diarizer.embed, segmentation)

    def cluster(self, segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings]) -> Awaitable[list[Turn]]:
        """Return the turns of the whole video from those of all its pieces, of as many speakers as the job says."""
        counts = self._job.options.speaker_counts
        return self._call("diarizer.cluster", self._handles.diarizer.cluster, segmentations, embeddings, **counts)

    def track_prosody(self, piece: Span) -> Awaitable[Tracks]:
        """Return pitch and level over the time of `piece`."""
        return self._call_on_audio("prosody.tracks", self._handles.prosody.tracks, piece)

    def measure_prosody(self, tracks: Tracks, segments: Sequence[Segment]) -> Awaitable[list[tuple[WordProsody, ...]]]:
        """Return the pitch and level of each word, by segment; `tracks` are those of the whole video."""
        return self._call("prosody.measure", self._handles.prosody.measure, tracks, segments)

    def classify_emotions(self, tracks: Tracks | None, segments: Sequence[Segment]) -> Awaitable[list[Emotion | None]]:
        """Return the emotion of each segment, None where there is nothing to judge by."""
        return self._call_on_audio("emotion.analyze", self._handles.emotion.analyze, tracks, segments, self._job.job_id)

    async def _call(self, name: str, method: DeploymentHandle[Any], *args: Any, **named: Any) -> Any:
        """Call `method`, which logs, traces and errors call `name`."""
        return await self._calls.call(partial(method.remote, **named), *args, name=name)

    async def _call_on_audio(self, name: str, method: DeploymentHandle[Any], *args: Any, **named: Any) -> Any:
        """Call `method` with the reference to the audio as its first argument."""

        async def call() -> Any:
            return await self._calls.call(
                lambda **options: method.remote(self._audio, *args, **named, **options),
                name=name,
                before_retry=self._load_audio,
            )

        await self._extract_if_last(0)  # all of its answers seemed to be saved, and one could not be loaded
        extractions = self._extractions
        try:
            return await call()
        except AudioMissingError:
            log.warning("the audio is gone: it is extracted again", extra=logs.about(self._job.job_id))
            await self._extract_if_last(extractions)
            return await call()

    async def _extract_if_last(self, extractions: int) -> None:
        """Extract the audio where nobody has since extraction number `extractions`: of all calls, one does."""
        async with self._extracting:
            if self._extractions == extractions:
                await self.extract()

    def _load_audio(self) -> None:
        """Have the extractor put the audio into the object store."""
        self._audio = self._handles.extractor.load.remote(self._job.job_id, self._job.run_id)
