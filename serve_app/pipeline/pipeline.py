"""One run of one job: which stage gets what, what runs beside what, and what may fail without costing the transcript.

        prepare ─ load ─┬─ detect ─ transcribe ─ align ─┐
                        ├─ segment ─ embed ─ cluster ───┼─ segments ─┬─ measure
                        └─ tracks ──────────────────────┘            └─ emotions ─ assemble

What an earlier attempt has left of a step is not worked out again; a step that failed leaves nothing. Knows the stages'
handles and nothing of the database or callbacks.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from deployments import logs
from deployments.diarizer.config import PIECE_S as DIARIZATION_PIECE_S
from deployments.emotion import config as emotion_config
from deployments.errors import JobError, TranscriptionError
from deployments.hallucinations.repetitions import drop_repeated_texts
from deployments.hallucinations.unheard_words import drop_unheard
from deployments.prosody.words import UNKNOWN
from deployments.speech_detector.chunks import join_spans, with_margins
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S
from deployments.transcriber.config import detects_language
from deployments.transcriber.passages import chunks_of, whole
from deployments.transcriber.protocol import AUTO
from deployments.types import SAMPLE_RATE_HZ, AudioInfo, Span, Tracks, Transcript, join_tracks, pieces
from deployments.warnings import ResultWarning, WarningCode, merged
from serve_app.jobs.progress import ProgressCounter, ProgressMeter, Stage
from serve_app.observability.tracing import UNTRACED
from serve_app.pipeline.assemble import Analysis, filename_of, result_of
from serve_app.pipeline.checkpoint_codec import PartialTranscript, Step, spans_as_bytes
from serve_app.pipeline.languages import planned
from serve_app.pipeline.languages import warnings as told_of
from serve_app.pipeline.resume import NoCheckpoints, Resumer, StageTimer, source_of
from serve_app.pipeline.segments import segments_of
from serve_app.pipeline.stage_client import TRANSIENT, StageCalls, together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ray.actor import ActorHandle
    from ray.serve.handle import DeploymentHandle

    from deployments.transcriber.passages import Passage
    from deployments.types import Emotion, Segment, Turn, WordProsody
    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Trace
    from serve_app.pipeline.resume import CheckpointSource
    from serve_app.settings import Settings

PROSODY_PIECE_S = 300.0
DOWNLOAD_SHARE = 0.6
"""Of the extraction's band; decoding has the rest."""
KEEP_EVERY_S = 20.0
"""What a long transcription has heard so far is kept so often: an attempt that dies costs no more than that."""
OF_THE_RUN = "run"
"""What extraction's answer is made from: rows of another run are not looked at."""

Answer = TypeVar("Answer")
log = logs.get_logger("pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The graph's handles. `aligner` is None where the recogniser times all words itself.

    `cpu` has the handles of the CPU pool, by the names here; None where there is no pool.
    """

    extractor: DeploymentHandle[Any]
    detector: DeploymentHandle[Any]
    transcriber: DeploymentHandle[Any]
    aligner: DeploymentHandle[Any] | None
    diarizer: DeploymentHandle[Any]
    prosody: DeploymentHandle[Any]
    emotion: DeploymentHandle[Any]
    cpu: Mapping[str, Any] | None = None

    def on(self, *, enable_gpu: bool) -> Stages:
        """What a job calls: the CPU pool where it asks for no GPU and there is a pool. `Settings.on` is its like."""
        return self if enable_gpu or self.cpu is None else replace(self, **self.cpu)


class Pipeline:
    """Works through the graph for one job. `meter` is told what is done, `changed` is called when it was.

    `kept` is where answers are left for the next attempt.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        stages: Stages,
        *,
        meter: ProgressMeter,
        changed: Callable[[], None],
        kept: CheckpointSource | None = None,
        alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        clock: StageTimer | None = None,
        trace: Trace = UNTRACED,
    ) -> None:
        self._job = job
        self._settings = settings.on(enable_gpu=job.options.enable_gpu)
        self._stages = stages.on(enable_gpu=job.options.enable_gpu)
        self._meter = meter
        self._changed = changed
        self._calls = StageCalls(job.job_id, job.options.max_workers, alone, trace)
        self._clock = clock or StageTimer(trace=trace)
        self._trace = trace
        self._resumer = Resumer(kept or NoCheckpoints(), self._clock)
        self._warnings: list[ResultWarning] = []
        self._reporter: ActorHandle[Any] | None = None
        self._fetching = asyncio.Lock()
        self._audio: Any = None
        self._source = ""
        """What all answers about the sound are made from: the sound and the engines."""

    async def run(self, reporter: ActorHandle[Any] | None, *, spent_s: float) -> dict[str, Any]:
        """The contract's `result`. Raises a `JobError` where the transcript cannot be had.

        `reporter` hears of the progress of the download; `spent_s` is the run's processing time before this attempt.
        """
        started = time.monotonic()
        self._reporter = reporter
        await self._resumer.open()
        self._progress(Stage.STARTING, 1)
        info = await self._extract()
        self._source = source_of(info.sha256, self._settings.model_version)
        heard, turns, tracks = await together(self._transcribe(info), self._diarize(info), self._track(info))
        self._warnings += heard.warnings
        transcripts = list(heard.transcripts.values())
        segments = self._segments(transcripts, turns)
        prosody, emotions = await self._analyse(segments, tracks)
        self._progress(Stage.ANALYSIS, 1)
        analysis = Analysis(
            duration_s=info.duration_s,
            language=self._language(transcripts),
            language_probability=heard.language_probability,
            segments=segments,
            prosody=prosody,
            emotions=emotions,
            filename=filename_of(self._job.video_url),
            model_version=self._settings.model_version,
            device="+".join(sorted({each.device for each in transcripts})) or self._settings.transcriber.device,
            processing_s=spent_s + time.monotonic() - started,
            stages_s=self._clock.seconds,
            warnings=merged(self._warnings),
        )
        with self._trace.span("assembly"):
            result = result_of(analysis, self._settings.locale)
        self._progress(Stage.ASSEMBLY, 1)
        return result

    def _load(self) -> None:
        """Bring the audio into the object store, owned by this driver; again when it was lost."""
        self._audio = self._stages.extractor.load.remote(self._job.job_id, self._job.run)

    async def _on_audio(self, method: str, *args: Any, **named: Any) -> Any:
        """Call a stage's method with the audio's reference first: the samples themselves do not pass through here."""
        handle: Any = attrgetter(method)(self._stages)
        async with self._fetching:
            if self._audio is None:  # it was thought that all is kept that is heard from it
                await self._fetch()
        return await self._calls.call(
            lambda **options: handle.remote(self._audio, *args, **named, **options),
            name=method,
            before_retry=self._load,
        )

    def extraction_progress(self, step: str, fraction: float) -> None:
        """The extractor's report: `step` is download or extract."""
        done = DOWNLOAD_SHARE * fraction if step == "download" else DOWNLOAD_SHARE + (1 - DOWNLOAD_SHARE) * fraction
        self._progress(Stage.EXTRACTION, min(done, 0.99))

    def _progress(self, stage: Stage, fraction: float) -> None:
        self._meter.set(stage, fraction)
        self._changed()

    async def _fetch(self) -> AudioInfo:
        info: AudioInfo = await self._calls.call(
            self._stages.extractor.prepare.remote,
            self._job.job_id,
            self._job.run,
            self._job.video_url,
            self._reporter,
            name="extractor.prepare",
        )
        self._load()
        return info

    async def _extract(self) -> AudioInfo:
        """What is known of the audio, and the audio itself unless all is kept that is heard from it."""
        heard = [Step.TRANSCRIPTION, Step.DIARIZATION, Step.TRACKS]
        if self._job.options.emotion_detection:
            heard.append(Step.EMOTION)
        info: AudioInfo | None = None
        if self._resumer.has(*heard):
            info = await self._resumer.find(Step.EXTRACTION, OF_THE_RUN)
        if info is None:
            with self._clock.time("extraction"):
                info = await self._fetch()
            self._resumer.keep(Step.EXTRACTION, OF_THE_RUN, info)
        self._warnings += info.warnings
        self._progress(Stage.EXTRACTION, 1)
        return info

    async def _transcribe(self, info: AudioInfo) -> PartialTranscript:
        async def work() -> PartialTranscript:
            speech = await self._resumer.once(
                Step.DETECTION, self._source, lambda: self._detect(info), timed_as="detection"
            )
            self._progress(Stage.DETECTION, 1)
            with self._clock.time("transcription"):
                return await self._recognise(speech)

        heard = await self._resumer.once(Step.TRANSCRIPTION, self._source, work)
        self._progress(Stage.DETECTION, 1)
        self._progress(Stage.TRANSCRIPTION, 1)
        return heard

    async def _detect(self, info: AudioInfo) -> list[Span]:
        todo = list(pieces(_audio_s(info), DETECTION_PIECE_S))
        counted = ProgressCounter(len(todo), lambda fraction: self._progress(Stage.DETECTION, fraction))

        async def detect(piece: Span) -> list[Span]:
            with counted.one():
                spans: list[Span] = await self._on_audio("detector.detect", piece)
                return spans

        found = await self._calls.map(detect, todo)
        return join_spans(found)

    async def _recognise(self, speech: Sequence[Span]) -> PartialTranscript:
        source = source_of(self._source, spans_as_bytes(speech))

        async def recognise(numbered: tuple[int, Passage]) -> None:
            number, chunk = numbered
            with counted.one(chunk.duration_s):
                if number not in transcripts:
                    transcripts[number] = await self._hear(chunk, speech)
                    self._resumer.keep_now_and_then(Step.PARTIAL_TRANSCRIPT, source, so_far, every_s=KEEP_EVERY_S)

        def so_far() -> PartialTranscript:
            return replace(heard, transcripts=dict(sorted(transcripts.items())))

        try:
            before: PartialTranscript | None = await self._resumer.find(Step.PARTIAL_TRANSCRIPT, source)
            heard = before or await self._to_hear(speech)
            transcripts = dict(heard.transcripts)
            total_s = sum(chunk.duration_s for chunk in heard.chunks)
            counted = ProgressCounter(total_s, lambda fraction: self._progress(Stage.TRANSCRIPTION, fraction))
            await self._calls.map(recognise, enumerate(heard.chunks))
        except (JobError, MemoryError, *TRANSIENT):
            raise
        except Exception as error:
            raise TranscriptionError from error
        return replace(heard, transcripts=drop_repeated_texts(transcripts, speech))

    async def _hear(self, chunk: Passage, speech: Sequence[Span]) -> Transcript:
        inside = [span for span in speech if span.overlap_s(chunk) > 0]
        transcript: Transcript = await self._on_audio(
            "transcriber.transcribe", chunk, chunk.language, self._job.job_id, inside
        )
        if self._stages.aligner is not None:
            transcript = await self._on_audio("aligner.align", transcript, self._job.job_id)
        return drop_unheard(transcript, speech)

    async def _to_hear(self, speech: Sequence[Span]) -> PartialTranscript:
        """The chunks, none heard yet, in the asked language or those found; `auto` where the engine cannot tell."""

        async def hear(spans: Sequence[Span], brief: bool) -> list[dict[str, float]]:  # noqa: FBT001  `Hear`
            async def one(span: Span) -> dict[str, float]:
                method = "transcriber.detect_language"
                probabilities: dict[str, float] = await self._on_audio(method, span, self._job.job_id, brief=brief)
                return probabilities

            return await self._calls.map(one, spans)

        config, language = self._settings.transcriber, self._job.options.language
        plan = None
        if language == AUTO and detects_language(config):
            plan = await planned(speech, config.max_chunk_s, hear)
        found = plan.passages if plan else whole(speech, language)
        return PartialTranscript(
            chunks=with_margins(chunks_of(found, speech, config.max_chunk_s), config.max_chunk_s),
            language_probability=plan.probability if plan else None,
            warnings=told_of(plan, speech) if plan else [],
            transcripts={},
        )

    async def _diarize(self, info: AudioInfo) -> list[Turn]:
        turns = await self._optional(
            self._resumer.once(Step.DIARIZATION, self._source, lambda: self._find_turns(info), timed_as="diarization"),
            [],
            WarningCode.DIARIZATION_FAILED,
        )
        self._progress(Stage.DIARIZATION, 1)
        return turns

    async def _find_turns(self, info: AudioInfo) -> list[Turn]:
        todo = list(pieces(_audio_s(info), DIARIZATION_PIECE_S))
        counted = ProgressCounter(len(todo) + 1, lambda fraction: self._progress(Stage.DIARIZATION, fraction))

        async def embed(piece: Span) -> tuple[Any, Any]:
            with counted.one():
                segmentation = await self._on_audio("diarizer.segment", piece)
                return segmentation, await self._on_audio("diarizer.embed", segmentation)

        found = await self._calls.map(embed, todo)
        segmentations, embeddings = [pair[0] for pair in found], [pair[1] for pair in found]
        turns: list[Turn] = await self._calls.call(
            self._stages.diarizer.cluster.remote, segmentations, embeddings, name="diarizer.cluster"
        )
        return turns

    async def _track(self, info: AudioInfo) -> Tracks | None:
        todo = list(pieces(_audio_s(info), PROSODY_PIECE_S))
        counted = ProgressCounter(len(todo) * 2, lambda fraction: self._progress(Stage.ANALYSIS, fraction))

        async def track(piece: Span) -> Tracks:
            with counted.one():
                tracks: Tracks = await self._on_audio("prosody.tracks", piece)
                return tracks

        async def all_tracks() -> Tracks:
            return join_tracks(await self._calls.map(track, todo))

        tracks = self._resumer.once(Step.TRACKS, self._source, all_tracks, timed_as="prosody")
        return await self._optional(tracks, None, WarningCode.PROSODY_FAILED)

    def _segments(self, transcripts: Sequence[Transcript], turns: Sequence[Turn]) -> list[Segment]:
        for transcript in transcripts:
            self._warnings += transcript.warnings
        segments = segments_of((heard for transcript in transcripts for heard in transcript.utterances), turns)
        return [replace(segment, language=_language_of(segment, transcripts)) for segment in segments]

    async def _analyse(
        self, segments: list[Segment], tracks: Tracks | None
    ) -> tuple[Sequence[Sequence[WordProsody]], Sequence[Emotion | None] | None]:
        if not segments:
            return [], None
        source = source_of(self._source, spans_as_bytes(segments))
        measured, judged = self._measure(segments, tracks, source), self._judge(segments, tracks, source)
        prosody, emotions = await together(measured, judged)
        return prosody, emotions

    async def _measure(
        self, segments: list[Segment], tracks: Tracks | None, source: str
    ) -> Sequence[Sequence[WordProsody]]:
        floor = [[UNKNOWN] * len(segment.words) for segment in segments]
        if tracks is None:
            return floor

        async def work() -> Sequence[Sequence[WordProsody]]:
            measured: Sequence[Sequence[WordProsody]] = await self._calls.call(
                lambda: self._stages.prosody.measure.remote(tracks, segments), name="prosody.measure"
            )
            return measured

        measured = self._resumer.once(Step.PROSODY, source, work, timed_as="analysis")
        prosody: Sequence[Sequence[WordProsody]] = await self._optional(measured, floor, WarningCode.PROSODY_FAILED)
        self._progress(Stage.ANALYSIS, 0.6)
        return prosody

    async def _judge(
        self, segments: list[Segment], tracks: Tracks | None, source: str
    ) -> Sequence[Emotion | None] | None:
        config = self._settings.emotion
        if not self._job.options.emotion_detection:
            return None
        if not emotion_config.needs_tracks(config):
            tracks = None
        elif tracks is None:
            self._warnings.append(ResultWarning(code=WarningCode.EMOTION_FAILED))
            return None

        parts = emotion_config.parts(config, segments)
        counted = ProgressCounter(len(parts), lambda fraction: self._progress(Stage.ANALYSIS, 0.6 + 0.4 * fraction))

        async def judge(part: Sequence[Segment]) -> list[Emotion | None]:
            with counted.one():
                method = "emotion.analyze"
                emotions: list[Emotion | None] = await self._on_audio(method, tracks, part, self._job.job_id)
                return emotions

        async def work() -> list[Emotion | None]:
            return [emotion for part in await self._calls.map(judge, parts) for emotion in part]

        judged = self._resumer.once(Step.EMOTION, source, work, timed_as="analysis")
        emotions = await self._optional(judged, None, WarningCode.EMOTION_FAILED)
        if emotions is not None:
            self._warnings += emotion_config.warnings(config, segments)
        return emotions

    def _language(self, transcripts: Sequence[Transcript]) -> str:
        """The language that most speech was recognised in; the requested one where nobody spoke."""
        spoken_s: defaultdict[str, float] = defaultdict(float)
        for transcript in transcripts:
            for heard in transcript.utterances:
                spoken_s[transcript.language] += heard.duration_s
        return max(spoken_s, key=spoken_s.__getitem__) if spoken_s else self._job.options.language

    async def _optional(self, work: Awaitable[Answer], otherwise: Answer, code: WarningCode) -> Answer:
        """The answer of a stage that the transcript can do without."""
        try:
            return await work
        except Exception as error:
            log.warning("a stage failed", exc_info=error, extra=logs.about(self._job.job_id, warning=code))
            self._warnings.append(ResultWarning(code=code))
            return otherwise


def _language_of(segment: Segment, transcripts: Sequence[Transcript]) -> str:
    """That of the transcripts that share most time with it."""
    shared_s: defaultdict[str, float] = defaultdict(float)
    for transcript in transcripts:
        for heard in transcript.utterances:
            shared_s[transcript.language] += heard.overlap_s(segment)
    return max(shared_s, key=shared_s.__getitem__)


def _audio_s(info: AudioInfo) -> float:
    """Length of the sound, which may end before the picture does."""
    return info.samples / SAMPLE_RATE_HZ
