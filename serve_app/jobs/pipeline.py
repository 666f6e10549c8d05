"""One run of one job: which stage gets what, what runs beside what, and what may fail without costing the transcript.

        prepare ─ load ─┬─ detect ─ transcribe ─ align ─┐
                        ├─ segment ─ embed ─ cluster ───┼─ segments ─┬─ measure
                        └─ tracks ──────────────────────┘            └─ emotions ─ assemble

Knows the stages' handles and nothing of the database or callbacks.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from deployments import logs
from deployments.aligner.witness import without_strays
from deployments.diarizer.config import PIECE_S as DIARIZATION_PIECE_S
from deployments.emotion import config as emotion_config
from deployments.errors import JobError, TranscriptionError
from deployments.prosody.words import UNKNOWN
from deployments.speech_detector.chunks import cut_chunks, join_spans, speech_share
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S
from deployments.transcriber.config import detects_language
from deployments.transcriber.engine import AUTO
from deployments.transcriber.language import vote, voters
from deployments.types import SAMPLE_RATE_HZ, AudioInfo, Span, Tracks, Transcript, join_tracks, pieces
from serve_app.jobs.assemble import Analysis, filename_of, result_of, segments_of
from serve_app.jobs.calls import TRANSIENT, StageCalls, together
from serve_app.jobs.progress import ProgressMeter, Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ray.actor import ActorHandle
    from ray.serve.handle import DeploymentHandle

    from deployments.types import Emotion, Segment, Turn, WordProsody
    from serve_app.jobs.model import Job
    from serve_app.settings import Settings

PROSODY_PIECE_S = 300.0
DOWNLOAD_SHARE = 0.6
"""Of the extraction's band; decoding has the rest."""

EMOTION_FAILED = "emotion analysis failed: no emotions are given"
PROSODY_FAILED = "prosody failed: volume and pitch are floor values"

Answer = TypeVar("Answer")
log = logs.get_logger("pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The graph's handles. `aligner` is None where the recogniser has word times of its own.

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


@dataclass(slots=True)
class _Clock:
    """Wall time of each stage; stages overlap, so the sum is more than the whole."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = time.monotonic() - started


class Pipeline:
    """Works through the graph for one job. `meter` is told what is done, `changed` is called when it was."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        stages: Stages,
        *,
        meter: ProgressMeter,
        changed: Callable[[], None],
        alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._job = job
        self._settings = settings.on(enable_gpu=job.options.enable_gpu)
        self._stages = stages.on(enable_gpu=job.options.enable_gpu)
        self._meter = meter
        self._changed = changed
        self._calls = StageCalls(job.job_id, job.options.max_workers, alone)
        self._clock = _Clock()
        self._warnings: list[str] = [*settings.warnings]
        self._language_probability: float | None = None
        self._audio: Any = None

    async def run(self, reporter: ActorHandle[Any] | None, *, spent_s: float) -> dict[str, Any]:
        """The contract's `result`. Raises a `JobError` where the transcript cannot be had.

        `reporter` hears of the progress of the download; `spent_s` is the run's processing time before this attempt.
        """
        started = time.monotonic()
        self._progress(Stage.STARTING, 1)
        info = await self._extract(reporter)
        transcripts, turns, tracks = await together(self._transcribe(info), self._diarize(info), self._track(info))
        segments = self._segments(transcripts, turns)
        prosody, emotions = await self._analyse(segments, tracks)
        self._progress(Stage.ANALYSIS, 1)
        result = result_of(
            Analysis(
                duration_s=info.duration_s,
                language=self._language(transcripts),
                language_probability=self._language_probability,
                segments=segments,
                prosody=prosody,
                emotions=emotions,
                filename=filename_of(self._job.video_url),
                model_version=self._settings.model_version,
                device="+".join(sorted({each.device for each in transcripts})) or self._settings.device,
                processing_s=spent_s + time.monotonic() - started,
                stages_s=self._clock.seconds,
                warnings=list(dict.fromkeys(self._warnings)),
            )
        )
        self._progress(Stage.ASSEMBLY, 1)
        return result

    def _load(self) -> None:
        """Bring the audio into the object store, owned by this driver; again when it was lost."""
        self._audio = self._stages.extractor.load.remote(self._job.job_id, self._job.run)

    async def _on_audio(self, method: Any, *args: Any) -> Any:
        """Call a stage with the audio's reference first: the samples themselves do not pass through here."""
        return await self._calls.call(
            lambda **options: method.remote(self._audio, *args, **options), before_retry=self._load
        )

    def extraction_progress(self, step: str, fraction: float) -> None:
        """The extractor's report: `step` is download or extract."""
        done = DOWNLOAD_SHARE * fraction if step == "download" else DOWNLOAD_SHARE + (1 - DOWNLOAD_SHARE) * fraction
        self._progress(Stage.EXTRACTION, min(done, 0.99))

    def _progress(self, stage: Stage, fraction: float) -> None:
        self._meter.set(stage, fraction)
        self._changed()

    async def _extract(self, reporter: ActorHandle[Any] | None) -> AudioInfo:
        job = self._job
        with self._clock.time("extraction"):
            info: AudioInfo = await self._calls.call(
                self._stages.extractor.prepare.remote, job.job_id, job.run, job.video_url, reporter
            )
            self._load()
        self._warnings += info.warnings
        self._progress(Stage.EXTRACTION, 1)
        return info

    async def _transcribe(self, info: AudioInfo) -> list[Transcript]:
        with self._clock.time("detection"):
            speech = await self._detect(info)
        self._progress(Stage.DETECTION, 1)
        with self._clock.time("transcription"):
            transcripts = await self._recognise(speech)
        self._progress(Stage.TRANSCRIPTION, 1)
        return transcripts

    async def _detect(self, info: AudioInfo) -> list[Span]:
        todo = list(pieces(_audio_s(info), DETECTION_PIECE_S))
        counted = _Counted(len(todo), lambda fraction: self._progress(Stage.DETECTION, fraction))

        async def detect(piece: Span) -> list[Span]:
            with counted.one():
                spans: list[Span] = await self._on_audio(self._stages.detector.detect, piece)
                return spans

        found = await self._calls.map(detect, todo)
        return join_spans(found)

    async def _recognise(self, speech: Sequence[Span]) -> list[Transcript]:
        chunks = cut_chunks(speech, self._settings.transcriber.max_chunk_s)
        total_s = sum(chunk.duration_s for chunk in chunks)
        counted = _Counted(total_s, lambda fraction: self._progress(Stage.TRANSCRIPTION, fraction))

        async def recognise(chunk: Span) -> Transcript:
            with counted.one(chunk.duration_s):
                transcript: Transcript = await self._on_audio(
                    self._stages.transcriber.transcribe,
                    chunk,
                    language,
                    self._job.job_id,
                    speech_share(chunk, speech),
                )
                if self._stages.aligner is not None:
                    transcript = await self._on_audio(self._stages.aligner.align, transcript, self._job.job_id)
                    transcript = without_strays(transcript, speech)
                return transcript

        try:
            language = await self._language_to_hear(chunks)
            return await self._calls.map(recognise, chunks)
        except (JobError, MemoryError, *TRANSIENT):
            raise
        except Exception as error:
            raise TranscriptionError from error

    async def _language_to_hear(self, chunks: Sequence[Span]) -> str:
        """The asked one, else what several chunks vote for; `auto` stays where the engine cannot tell, or none does."""
        asked = self._job.options.language
        if asked != AUTO or not detects_language(self._settings.transcriber):
            return asked

        async def hear(chunk: Span) -> dict[str, float]:
            method = self._stages.transcriber.detect_language
            probabilities: dict[str, float] = await self._on_audio(method, chunk, self._job.job_id)
            return probabilities

        asked_chunks = voters(chunks)
        heard = await self._calls.map(hear, asked_chunks)
        found = vote(heard, [chunk.duration_s for chunk in asked_chunks])
        if found is None:
            return asked
        language, self._language_probability = found
        return language

    async def _diarize(self, info: AudioInfo) -> list[Turn]:
        with self._clock.time("diarization"):
            turns = await self._optional(
                self._find_turns(info), [], "diarization failed: the whole video is given to one speaker"
            )
        self._progress(Stage.DIARIZATION, 1)
        return turns

    async def _find_turns(self, info: AudioInfo) -> list[Turn]:
        diarizer = self._stages.diarizer
        todo = list(pieces(_audio_s(info), DIARIZATION_PIECE_S))
        counted = _Counted(len(todo) + 1, lambda fraction: self._progress(Stage.DIARIZATION, fraction))

        async def embed(piece: Span) -> tuple[Any, Any]:
            with counted.one():
                segmentation = await self._on_audio(diarizer.segment, piece)
                return segmentation, await self._on_audio(diarizer.embed, segmentation)

        found = await self._calls.map(embed, todo)
        segmentations, embeddings = [pair[0] for pair in found], [pair[1] for pair in found]
        turns: list[Turn] = await self._calls.call(diarizer.cluster.remote, segmentations, embeddings)
        return turns

    async def _track(self, info: AudioInfo) -> Tracks | None:
        todo = list(pieces(_audio_s(info), PROSODY_PIECE_S))
        counted = _Counted(len(todo) * 2, lambda fraction: self._progress(Stage.ANALYSIS, fraction))

        async def track(piece: Span) -> Tracks:
            with counted.one():
                tracks: Tracks = await self._on_audio(self._stages.prosody.tracks, piece)
                return tracks

        async def all_tracks() -> Tracks:
            return join_tracks(await self._calls.map(track, todo))

        with self._clock.time("prosody"):
            return await self._optional(all_tracks(), None, PROSODY_FAILED)

    def _segments(self, transcripts: Sequence[Transcript], turns: Sequence[Turn]) -> list[Segment]:
        for transcript in transcripts:
            self._warnings += transcript.warnings
        return segments_of((heard for transcript in transcripts for heard in transcript.utterances), turns)

    async def _analyse(
        self, segments: list[Segment], tracks: Tracks | None
    ) -> tuple[Sequence[Sequence[WordProsody]], Sequence[Emotion | None] | None]:
        with self._clock.time("analysis"):
            if not segments:
                return [], None
            prosody, emotions = await together(self._measure(segments, tracks), self._judge(segments, tracks))
            return prosody, emotions

    async def _measure(self, segments: list[Segment], tracks: Tracks | None) -> Sequence[Sequence[WordProsody]]:
        floor = [[UNKNOWN] * len(segment.words) for segment in segments]
        if tracks is None:
            return floor
        measured = self._calls.call(lambda: self._stages.prosody.measure.remote(tracks, segments))
        prosody: Sequence[Sequence[WordProsody]] = await self._optional(measured, floor, PROSODY_FAILED)
        self._progress(Stage.ANALYSIS, 0.6)
        return prosody

    async def _judge(self, segments: list[Segment], tracks: Tracks | None) -> Sequence[Emotion | None] | None:
        config = self._settings.emotion
        if not self._job.options.emotion_detection:
            return None
        if not emotion_config.needs_tracks(config):
            tracks = None
        elif tracks is None:
            self._warnings.append(EMOTION_FAILED)
            return None

        parts = emotion_config.parts(config, segments)
        counted = _Counted(len(parts), lambda fraction: self._progress(Stage.ANALYSIS, 0.6 + 0.4 * fraction))

        async def judge(part: Sequence[Segment]) -> list[Emotion | None]:
            with counted.one():
                method = self._stages.emotion.analyze
                emotions: list[Emotion | None] = await self._on_audio(method, tracks, part, self._job.job_id)
                return emotions

        judged = await self._optional(self._calls.map(judge, parts), None, EMOTION_FAILED)
        if judged is None:
            return None
        self._warnings += emotion_config.warnings(config)
        return [emotion for part in judged for emotion in part]

    def _language(self, transcripts: Sequence[Transcript]) -> str:
        """The language that most speech was recognised in; the requested one where nobody spoke."""
        spoken: Counter[str] = Counter()
        for transcript in transcripts:
            spoken[transcript.language] += sum(len(heard.words) for heard in transcript.utterances)
        spoken = +spoken
        return spoken.most_common(1)[0][0] if spoken else self._job.options.language

    async def _optional(self, work: Awaitable[Answer], otherwise: Answer, warning: str) -> Answer:
        """The answer of a stage that the transcript can do without."""
        try:
            return await work
        except Exception as error:
            log.warning(warning, exc_info=error, extra=logs.about(self._job.job_id))
            self._warnings.append(warning)
            return otherwise


def _audio_s(info: AudioInfo) -> float:
    """Length of the sound, which may end before the picture does."""
    return info.samples / SAMPLE_RATE_HZ


class _Counted:
    """Tells the done share of `total` after each piece of work."""

    def __init__(self, total: float, tell: Callable[[float], None]) -> None:
        self._total = total
        self._tell = tell
        self._done = 0.0

    @contextmanager
    def one(self, weight: float = 1.0) -> Iterator[None]:
        """Around one piece of work; counts it when it succeeded."""
        yield
        self._done += weight
        self._tell(min(0.99, self._done / self._total))
