"""One run of a job: which stage gets what, what runs side by side, and what may fail without costing the transcript.

        extract ─┬─ detect speech ─ transcribe ─ align ─┐
                 ├─ segment ─ embed ─ cluster ──────────┼─ segments ─┬─ measure prosody
                 └─ track prosody ──────────────────────┘            └─ classify emotions ─ assemble

A step whose answer an earlier attempt or run has saved is not run again, where it is computed from the same
(`reuse.py`); a step that failed saves nothing. Knows nothing of Ray, the database or callbacks.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from deployments import logs
from deployments.diarizer.config import PIECE_S as DIARIZATION_PIECE_S
from deployments.emotion import config as emotion_config
from deployments.extraction.protocol import Part
from deployments.hallucinations.repetitions import drop_repeated_texts
from deployments.hallucinations.unheard_words import drop_unheard
from deployments.prosody.words import UNKNOWN
from deployments.speech_detector.chunks import join_spans
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S
from deployments.transcriber.config import detects_language
from deployments.transcriber.passages import planned_chunks, whole
from deployments.transcriber.protocol import AUTO
from deployments.types import AudioInfo, Span, Tracks, Transcript, join_tracks, pieces
from deployments.warnings import ResultWarning, WarningCode, merged
from serve_app.jobs.stages import Stage, Step
from serve_app.observability.tracing import UNTRACED
from serve_app.pipeline import quality
from serve_app.pipeline.assemble import check_finite, filename_of, result_of
from serve_app.pipeline.channels import Channels, on_the_videos_clock
from serve_app.pipeline.checkpoint_codec import PartialTranscript, source_of, spans_as_bytes
from serve_app.pipeline.languages import language_warnings, main_language, plan_languages
from serve_app.pipeline.reuse import (
    audio_source,
    diarization_source,
    extraction_source,
    has_all_about,
    transcription_source,
)
from serve_app.pipeline.segments import segments_of
from serve_app.pipeline.stage_calls import together
from serve_app.pipeline.stage_client import StageClient
from serve_app.pipeline.steps import StageTimer, StepRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ray.actor import ActorHandle

    from deployments.diarizer.protocol import Embeddings, Segmentation
    from deployments.transcriber.passages import Passage
    from deployments.types import Emotion, Segment, Turn, WordProsody
    from serve_app.jobs.job import Job
    from serve_app.observability.tracing import Trace
    from serve_app.pipeline.checkpoint_writer import CheckpointWriter
    from serve_app.pipeline.languages import Probabilities
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

PROSODY_PIECE_S = 300.0
DOWNLOAD_SHARE = 0.6
"""Of the extraction's progress; decoding has the rest."""
TRACKS_SHARE, PROSODY_SHARE = 0.5, 0.6
"""Of the analysis' progress: the tracks, and these with the words' measures; emotions have the rest."""
SAVE_PARTIAL_EVERY_S = 20.0
"""How often a transcription saves the chunks that are done: an attempt that dies costs no more work than that."""
NEARLY_DONE = 0.99
"""The most that a stage's progress shows before the stage has ended."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Prosody: TypeAlias = "Sequence[Sequence[WordProsody]]"
"""The prosody of each word, by segment."""
log = logs.get_logger("pipeline")


class Pipeline:
    """Takes one job through the graph."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        handles: StageHandles,
        *,
        report_progress: Callable[[Stage, float], None],
        reporter: ActorHandle[Any] | None = None,
        checkpoints: CheckpointWriter | None = None,
        isolation: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        timer: StageTimer | None = None,
        trace: Trace = UNTRACED,
    ) -> None:
        """`report_progress` is called with the done fraction (0-1) of a stage; `reporter`: see `StageClient`."""
        self._job = job
        self._settings = settings.on(enable_gpu=job.options.enable_gpu)
        self._report_progress = report_progress
        self._stages = StageClient(job, handles, reporter=reporter, isolation=isolation, trace=trace)
        self._timer = timer or StageTimer(trace=trace)
        self._steps = StepRunner(checkpoints, self._timer)
        self._trace = trace
        self._warnings: list[ResultWarning] = []
        self._source = ""
        """What all answers about the audio are computed from: its samples and the engines."""
        self._speech: list[Span] | None = None
        """What this attempt detected, or loaded to transcribe it."""
        self._overlap: quality.Overlap | None = None
        """What this attempt measured beside the diarization."""
        self._channels: Channels | None = None
        """Those of the audio, where they are kept apart."""

    async def run(self, *, spent_s: float) -> dict[str, Any]:
        """Return the contract's `result`. Raises JobError if a stage failed without which there is no transcript.

        `spent_s` is the run's processing time before this attempt.
        """
        started = time.monotonic()
        await self._steps.open()
        self._report_progress(Stage.STARTING, 1)
        audio = await self._extract()
        self._source = audio_source(audio, self._job.options, self._settings.model_version)
        if audio.channels > 1:
            self._channels = Channels(count=audio.channels, each_s=audio.sound_s / audio.channels)
        spoken, turns, tracks = await together(
            self._transcribe(audio), self._diarize(audio), self._track_prosody(audio)
        )
        transcripts = list(spoken.transcripts.values())
        self._warnings += [*spoken.warnings, *(warning for each in transcripts for warning in each.warnings)]
        segments = self._segments(transcripts, turns)
        prosody, emotions = await self._analyse(segments, tracks)
        warnings = merged(self._warnings)
        trust = await self._quality(
            audio,
            tracks=tracks,
            turns=turns,
            segments=segments,
            language_probability=spoken.language_probability,
            warnings=warnings,
        )
        start_s = self._job.options.start_s or 0.0
        segments, prosody, emotions = on_the_videos_clock(segments, prosody, emotions, self._channels, start_s)
        self._report_progress(Stage.ANALYSIS, 1)
        with self._trace.span("assembly"):
            result = result_of(
                self._settings.locale,
                duration_s=audio.duration_s,
                language=main_language(transcripts, attrgetter("duration_s")) or self._job.options.asked_language,
                language_probability=spoken.language_probability,
                segments=segments,
                tells_languages=bool(self._job.options.languages),
                prosody=prosody,
                emotions=emotions,
                filename=filename_of(self._job.video_url),
                model_version=self._settings.model_version,
                device="+".join(sorted({each.device for each in transcripts})) or self._settings.transcriber.device,
                processing_s=spent_s + time.monotonic() - started,
                stages_s=self._timer.seconds,
                warnings=warnings,
                quality=trust,
            )
        self._report_progress(Stage.ASSEMBLY, 1)
        return result

    def report_progress(self, part: Part, fraction: float) -> None:
        """Take the extractor's report that `fraction` (0-1) of a part is done."""
        before, share = (0.0, DOWNLOAD_SHARE) if part is Part.DOWNLOAD else (DOWNLOAD_SHARE, 1 - DOWNLOAD_SHARE)
        self._report_progress(Stage.EXTRACTION, min(before + share * fraction, NEARLY_DONE))

    async def _extract(self) -> AudioInfo:
        """Return what is known of the audio; extract it unless the answers of all that listen to it are saved."""
        source = extraction_source(self._job.options)
        audio: AudioInfo | None = None
        if self._steps.has_saved(Step.EXTRACTION, source):
            audio = await self._steps.load(Step.EXTRACTION, source)
        if audio is None or not has_all_about(audio, self._steps, self._job, self._settings.model_version):
            audio = await self._steps.run(Step.EXTRACTION, source, self._stages.extract)
        self._warnings += audio.warnings
        self._report_progress(Stage.EXTRACTION, 1)
        return audio

    async def _transcribe(self, audio: AudioInfo) -> PartialTranscript:
        source = transcription_source(self._source, self._job.options)
        transcript: PartialTranscript | None = await self._steps.load(Step.TRANSCRIPTION, source)
        if transcript is None:
            self._speech = speech = await self._load_or_detect_speech(audio)
            self._report_progress(Stage.DETECTION, 1)
            transcript = await self._steps.run(Step.TRANSCRIPTION, source, lambda: self._transcribe_chunks(speech))
        self._report_progress(Stage.DETECTION, 1)
        self._report_progress(Stage.TRANSCRIPTION, 1)
        return transcript

    async def _load_or_detect_speech(self, audio: AudioInfo) -> list[Span]:
        return await self._steps.load_or_run(Step.DETECTION, self._source, lambda: self._detect_speech(audio))

    async def _detect_speech(self, audio: AudioInfo) -> list[Span]:
        todo = list(pieces(audio.sound_s, DETECTION_PIECE_S))
        speech = join_spans(await self._map(Stage.DETECTION, self._stages.detect_speech, todo))
        return self._channels.cut(speech) if self._channels else speech

    async def _transcribe_chunks(self, speech: Sequence[Span]) -> PartialTranscript:
        source = source_of(transcription_source(self._source, self._job.options), spans_as_bytes(speech))
        saved: PartialTranscript | None = await self._steps.load(Step.PARTIAL_TRANSCRIPT, source)
        begun = saved or await self._plan_chunks(speech)
        transcripts = dict(begun.transcripts)

        async def transcribe(numbered: tuple[int, Passage]) -> None:
            number, chunk = numbered
            if number not in transcripts:
                transcripts[number] = await self._transcribe_chunk(chunk, speech)
                self._steps.save_at_intervals(
                    Step.PARTIAL_TRANSCRIPT, source, done_so_far, interval_s=SAVE_PARTIAL_EVERY_S
                )

        def done_so_far() -> PartialTranscript:
            return replace(begun, transcripts=dict(sorted(transcripts.items())))

        todo = list(enumerate(begun.chunks))
        await self._map(Stage.TRANSCRIPTION, transcribe, todo, weights=[chunk.duration_s for chunk in begun.chunks])
        return replace(begun, transcripts=drop_repeated_texts(transcripts, speech))

    async def _transcribe_chunk(self, chunk: Passage, speech: Sequence[Span]) -> Transcript:
        inside = [span for span in speech if span.overlap_s(chunk) > 0]
        transcript = await self._stages.align(await self._stages.transcribe(chunk, inside))
        return drop_unheard(transcript, speech)

    async def _plan_chunks(self, speech: Sequence[Span]) -> PartialTranscript:
        """Return the chunks to transcribe, in the requested or detected language; `auto` where none is detected."""

        async def detect(spans: Sequence[Span], *, brief: bool) -> list[Probabilities]:
            return await self._stages.map(partial(self._stages.detect_language, brief=brief), spans)

        config, options = self._settings.transcriber, self._job.options
        language, plan = options.asked_language, None
        if language == AUTO and detects_language(config):
            plan = await plan_languages(speech, config.max_chunk_s, detect, options.languages)
        undetected = options.languages[0] if language == AUTO and options.languages else language
        passages = plan.passages if plan else whole(speech, undetected)
        if self._channels:
            passages = self._channels.cut(passages)
        return PartialTranscript(
            chunks=list(planned_chunks(passages, speech, config.max_chunk_s).values()),
            language_probability=plan.probability if plan else None,
            warnings=language_warnings(plan, speech) if plan else [],
            transcripts={},
        )

    async def _diarize(self, audio: AudioInfo) -> list[Turn]:
        if self._channels:  # each has one speaker
            self._report_progress(Stage.DIARIZATION, 1)
            return []
        counts = self._job.options.speaker_counts
        source = diarization_source(self._source, self._job.options)
        turns = await self._optional(
            self._steps.load_or_run(Step.DIARIZATION, source, lambda: self._find_turns(audio)),
            [],
            WarningCode.DIARIZATION_FAILED,
        )
        found = len({turn.speaker for turn in turns})
        if turns and found < max(counts.get("num_speakers", 0), counts.get("min_speakers", 0)):
            self._warnings.append(ResultWarning(code=WarningCode.FEWER_SPEAKERS, count=found))
        self._report_progress(Stage.DIARIZATION, 1)
        return turns

    async def _find_turns(self, audio: AudioInfo) -> list[Turn]:
        async def embed(piece: Span) -> tuple[Segmentation, Embeddings]:
            segmentation = await self._stages.segment(piece)
            return segmentation, await self._stages.embed(segmentation)

        todo = list(pieces(audio.sound_s, DIARIZATION_PIECE_S))
        embedded = await self._map(Stage.DIARIZATION, embed, todo, total=len(todo) + 1)  # clustering counts as a piece
        await self._measure_overlap([pair[0] for pair in embedded])
        return await self._stages.cluster([pair[0] for pair in embedded], [pair[1] for pair in embedded])

    async def _track_prosody(self, audio: AudioInfo) -> Tracks | None:
        todo = list(pieces(audio.sound_s, PROSODY_PIECE_S))

        async def track() -> Tracks:
            total = len(todo) / TRACKS_SHARE
            return join_tracks(await self._map(Stage.ANALYSIS, self._stages.track_prosody, todo, total=total))

        tracks = self._steps.load_or_run(Step.TRACKS, self._source, track)
        return await self._optional(tracks, None, WarningCode.PROSODY_FAILED)

    def _segments(self, transcripts: Sequence[Transcript], turns: Sequence[Turn]) -> list[Segment]:
        """Return the segments, each with its language; where the job names several, a change of it ends a segment."""
        spoken = [(utterance, each.language) for each in transcripts for utterance in each.utterances]
        utterances = [utterance for utterance, _ in spoken]
        languages = [language for _, language in spoken] if self._job.options.languages else ()
        if self._channels:
            found = self._channels.segments_of(utterances, languages)
        else:
            found = segments_of(utterances, turns, languages)
        return [replace(segment, language=main_language(transcripts, segment.overlap_s) or "") for segment in found]

    async def _analyse(
        self, segments: list[Segment], tracks: Tracks | None
    ) -> tuple[Prosody, Sequence[Emotion | None] | None]:
        source = source_of(self._source, spans_as_bytes(segments))
        if not segments:
            self._steps.save(Step.EMOTION, source, [])  # of nothing: a run after this one need not listen for it
            return [], None
        return await together(
            self._measure_prosody(segments, tracks, source), self._classify_emotions(segments, tracks, source)
        )

    async def _measure_prosody(self, segments: list[Segment], tracks: Tracks | None, source: str) -> Prosody:
        unknown: Prosody = [[UNKNOWN] * len(segment.words) for segment in segments]
        if tracks is None:
            return unknown

        async def measure() -> Prosody:
            prosody = await self._stages.measure_prosody(tracks, segments)
            if list(map(len, prosody)) != list(map(len, unknown)):
                raise ValueError("prosody is not of as many words")
            return prosody

        measured = self._steps.load_or_run(Step.PROSODY, source, measure)
        prosody = await self._optional(measured, unknown, WarningCode.PROSODY_FAILED)
        self._report_progress(Stage.ANALYSIS, PROSODY_SHARE)
        return prosody

    async def _classify_emotions(
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

        async def classify() -> list[Emotion | None]:
            work = partial(self._stages.classify_emotions, tracks)
            parts = emotion_config.parts(config, segments)
            answers = await self._map(Stage.ANALYSIS, work, parts, already_done=PROSODY_SHARE)
            emotions = [emotion for answer in answers for emotion in answer]
            if len(emotions) != len(segments):
                raise ValueError("emotions are not of as many segments")
            return emotions

        classified = self._steps.load_or_run(Step.EMOTION, source, classify)
        emotions = await self._optional(classified, None, WarningCode.EMOTION_FAILED)
        if emotions is not None:
            self._warnings += emotion_config.warnings(config, segments)
        return emotions

    async def _measure_overlap(self, segmentations: Sequence[Segmentation]) -> None:
        """Save the share of overlapped speech, which an attempt that loads the turns cannot tell from them."""

        async def measure() -> quality.Overlap:
            return quality.overlap_of(segmentations)

        if self._has_quality:
            try:
                self._overlap = await self._steps.run(Step.OVERLAP, self._source, measure)
            except Exception as error:
                log.warning("overlap was not measured", exc_info=error, extra=logs.about(self._job.job_id))

    async def _quality(
        self,
        audio: AudioInfo,
        *,
        tracks: Tracks | None,
        turns: Sequence[Turn],
        segments: Sequence[Segment],
        language_probability: float | None,
        warnings: Sequence[ResultWarning],
    ) -> dict[str, Any] | None:
        """Return the result's `quality`; None under contract 1.0, and where it fails: no transcript is lost for it."""
        if not self._has_quality:
            return None
        try:
            speech = self._speech
            if speech is None:  # an earlier attempt or run has transcribed it
                speech = await self._load_or_detect_speech(audio)
            overlap = self._overlap or await self._steps.load(Step.OVERLAP, self._source)
            return quality.report(
                audio_s=audio.sound_s,
                channels=self._channels,
                speech=speech,
                tracks=tracks,
                overlap=overlap if turns else None,
                segments=segments,
                language_probability=language_probability,
                warnings=warnings,
            )
        except Exception as error:
            log.warning("quality was not measured", exc_info=error, extra=logs.about(self._job.job_id))
            return None

    @property
    def _has_quality(self) -> bool:
        return self._settings.contract_version != "1.0"

    async def _map(
        self,
        stage: Stage,
        work: Callable[[Item], Awaitable[Answer]],
        items: Sequence[Item],
        *,
        weights: Sequence[float] | None = None,
        total: float | None = None,
        already_done: float = 0.0,
    ) -> list[Answer]:
        """Await `work` for each item, some at a time; report progress of `stage` after each.

        An item counts 1, or its weight, of `total`, by default of all items' sum. `already_done` is the fraction (0-1)
        of the stage that is done before.
        """
        weights = weights or [1.0] * len(items)
        total = total or sum(weights)
        done = 0.0

        async def counted(weighed: tuple[Item, float]) -> Answer:
            nonlocal done
            item, weight = weighed
            answer = await work(item)
            done += weight
            self._report_progress(stage, already_done + (1 - already_done) * min(NEARLY_DONE, done / total))
            return answer

        return await self._stages.map(counted, zip(items, weights, strict=True))

    async def _optional(self, work: Awaitable[Answer], otherwise: Answer, code: WarningCode) -> Answer:
        """Return the answer of a stage that the transcript can do without, or `otherwise` and a warning.

        An answer with a number that is not finite, which JSON does not know, is no answer.
        """
        try:
            answer = await work
            check_finite(answer)
        except Exception as error:
            log.warning("a stage failed", exc_info=error, extra=logs.about(self._job.job_id, warning=code))
            self._warnings.append(ResultWarning(code=code))
            return otherwise
        return answer
