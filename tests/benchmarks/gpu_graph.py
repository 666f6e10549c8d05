"""The whole graph without Ray: every stage in this process, with the queue and the batches that its replica has.

    detect ─ transcribe ─ align ─┐
    segment ─ embed ─ cluster ───┼─ segments ─ measure, emotions
    tracks ──────────────────────┘

The order of calls, and how many of one job are in flight, are those of serve_app/pipeline/pipeline.py, which needs Ray.
All stages share one interpreter here, where under Ray each has its own: times are upper bounds of what the stages
need, and lack what Ray itself costs. A stage whose engine cannot be had is left out and named.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import traceback
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deployments.types import Tracks, join_tracks, pieces
from tests.benchmarks import gpu_stages
from tests.benchmarks.gpu_plan import WITHOUT, Row
from tests.benchmarks.scripted_talk import LANGUAGE, heard, scripted_talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from deployments.types import Segment, Span, Transcript, Utterance
    from tests.benchmarks.gpu_plan import Meter, Plan
    from tests.benchmarks.scripted_talk import Talk

IN_FLIGHT: Final = 4
"""Calls of one job at once: a request's `max_workers`, where it asks for nothing else."""
MOST_WINDOWS: Final = 500
"""As in deployments/emotion/deployment.py, which needs Ray."""


def measure_graph(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """One job, then `plan.jobs` at once, warm."""
    graph = Graph(plan)
    path = plan.folder / "talk.npy"
    np.save(path, talk.audio)
    warm = scripted_talk(min(gpu_stages.WARM_S, talk.duration_s))
    np.save(plan.folder / "warm.npy", warm.audio)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(graph.jobs(1, warm, plan.folder / "warm.npy"))
        for jobs in (1, plan.jobs):
            with meter.watch() as watched:
                ran = asyncio.run(graph.jobs(jobs, talk, path))
            rows.append(
                Row(
                    stage=f"whole graph, {jobs} job{'s' * (jobs > 1)}",
                    precision="as above",
                    batch="as above",
                    seconds=watched.seconds,
                    audio_s=jobs * talk.duration_s,
                    peak_mb=watched.peak_mb,
                    note=graph.told(ran),
                )
            )
    graph.close()
    return rows


@dataclass(slots=True)
class Ran:
    """What jobs came to."""

    segments: int = 0
    words: int = 0


class Graph:
    """All engines, loaded, each behind the queue of its replica."""

    def __init__(self, plan: Plan) -> None:
        from deployments.replica import Compute

        self.missing = [stage for stage in plan.without if stage in {*gpu_stages.ENGINES, "prosody"}]
        self._plan = plan
        self._prosody: Executor = (
            ProcessPoolExecutor(plan.prosody_processes, multiprocessing.get_context("spawn"))
            if plan.prosody_processes
            else ThreadPoolExecutor(1)
        )
        self._engines: dict[str, tuple[Any, Any]] = {}
        for stage, load in gpu_stages.ENGINES.items():
            self._load(stage, partial(load, plan))
        self._load("prosody", lambda: (self._prosody.submit(prosody_engine_loads).result(), None))
        self._compute = {stage: Compute() for stage in self._engines}
        self._ask, self._align, self._judge = self._batchers()

    def _load(self, stage: str, load: Callable[[], tuple[Any, Any]]) -> None:
        if stage in self.missing:
            return
        try:
            self._engines[stage] = load()
        except Exception:  # noqa: BLE001  whatever is wrong with it, the others are measured
            traceback.print_exc()
            self.missing.append(stage)

    def _batchers(self) -> tuple[Any, Any, Any]:
        """The queues of recogniser, aligner and emotion, which take what several jobs ask at a time."""
        from deployments.batch_backoff import BatchBackoff
        from deployments.batcher import Batcher

        ask = align = judge = None
        if "transcription" in self._engines:
            from deployments.transcriber.protocol import answer

            engine, config = self._engines["transcription"]
            ladder: Any = BatchBackoff(partial(answer, engine), max_batch=config.batch_size)
            ask = Batcher(ladder, max_batch=config.batch_size)
        if "alignment" in self._engines:
            engine, config = self._engines["alignment"]
            align = Batcher(engine.align, max_batch=config.batch_items)
        if "emotion" in self._engines:
            engine, config = self._engines["emotion"]
            judge = Batcher(engine.judge, max_batch=MOST_WINDOWS, weigh=engine.weight_s, max_weight=config.batch_s)
        return ask, align, judge

    def told(self, ran: Ran) -> str:
        """What came out, and which stages are not in it."""
        done = f"{ran.segments} segments, {ran.words} words"
        return f"{done}{WITHOUT}{', '.join(self.missing)}" if self.missing else done

    def close(self) -> None:
        """End the processes."""
        self._prosody.shutdown()

    async def jobs(self, count: int, talk: Talk, path: Path) -> Ran:
        """`count` jobs at once, each over the whole talk, which also lies in `path`."""
        ran = Ran()
        segments = await asyncio.gather(*(self._job(f"job-{number}", talk, path) for number in range(count)))
        for each in segments:
            ran.segments += len(each)
            ran.words += sum(len(segment.words) for segment in each)
        return ran

    async def _job(self, job_id: str, talk: Talk, path: Path) -> list[Segment]:
        from serve_app.pipeline.segments import segments_of

        calls = Calls()
        transcripts, _, tracks = await asyncio.gather(
            self._transcribe(calls, job_id, talk), self._diarize(calls, talk), self._track(calls, talk, path)
        )
        segments = segments_of((each for transcript in transcripts for each in transcript.utterances), talk.turns)
        if tracks is not None:
            from deployments.prosody.words import measure

            await calls.call(self._compute["prosody"](measure, tracks, segments))
        if "emotion" in self._engines:
            from deployments.emotion.config import parts

            engine, config = self._engines["emotion"]

            async def judge(part: Sequence[Segment]) -> None:
                items = [item for cut in engine.cut(talk.audio, None, part) for item in cut]
                await calls.call(self._judge.all(job_id, items))

            await calls.map(judge, parts(config, segments))
        return segments

    async def _transcribe(self, calls: Calls, job_id: str, talk: Talk) -> list[Transcript]:
        if "detection" in self._engines:
            from deployments.speech_detector.config import PIECE_S

            engine, _ = self._engines["detection"]

            async def detect(piece: Span) -> None:
                await calls.call(self._compute["detection"](engine.detect, talk.audio, piece))

            await calls.map(detect, list(pieces(talk.duration_s, PIECE_S)))
        return await calls.map(partial(self._hear, calls, job_id, talk), talk.chunks)

    async def _hear(self, calls: Calls, job_id: str, talk: Talk, chunk: Utterance) -> Transcript:
        """A chunk's words: recognised, then aligned; the text is the script's."""
        if self._ask is not None:
            from deployments.transcriber.protocol import Chunk, Question

            piece = Chunk(audio=chunk.of(talk.audio), start_s=chunk.start_s, language=LANGUAGE)
            await calls.call(self._ask(job_id, Question(chunk=piece)))
        if self._align is not None:
            from deployments.aligner.protocol import AlignItem

            item = AlignItem(audio=talk.audio, transcript=heard(chunk))
            aligned: Transcript = await calls.call(self._align(job_id, item))
            return aligned
        from deployments.aligner.proportional import interpolated

        return interpolated(heard(chunk))

    async def _diarize(self, calls: Calls, talk: Talk) -> None:
        if "diarization" not in self._engines:
            return
        from deployments.diarizer.config import PIECE_S

        engine, _ = self._engines["diarization"]
        compute = self._compute["diarization"]

        async def embed(piece: Span) -> tuple[Any, Any]:
            segmentation = await calls.call(compute(engine.segment, talk.audio, piece))
            return segmentation, await calls.call(compute(engine.embed, talk.audio, segmentation))

        found = await calls.map(embed, list(pieces(talk.duration_s, PIECE_S)))
        spoken = gpu_stages.voices([pair[1] for pair in found])
        await calls.call(compute(engine.cluster, [pair[0] for pair in found], spoken))

    async def _track(self, calls: Calls, talk: Talk, path: Path) -> Tracks | None:
        if "prosody" not in self._engines:
            return None

        async def track(piece: Span) -> Tracks:
            return await asyncio.get_running_loop().run_in_executor(self._prosody, tracks_of, str(path), piece)

        parts = list(pieces(talk.duration_s, gpu_stages.PROSODY_PIECE_S))
        return join_tracks(await calls.map(lambda piece: calls.call(track(piece)), parts))


class Calls:
    """The calls of one job, `IN_FLIGHT` at once over all stages, as serve_app/pipeline/stage_client.py has them."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def call(self, work: Awaitable[Any]) -> Any:
        """Await one in a slot."""
        async with self._slots:
            return await work

    async def map(self, work: Callable[[Any], Awaitable[Any]], items: Sequence[Any]) -> list[Any]:
        """`work` for each item, no more at a time than may be in flight; answers in order."""
        answers: list[Any] = [None] * len(items)
        todo = iter(enumerate(items))

        async def worker() -> None:
            for index, item in todo:
                answers[index] = await work(item)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        return answers


@cache
def prosody_engine() -> Any:
    """The prosody engine of this process."""
    from deployments.prosody.config import ProsodyConfig
    from deployments.prosody.registry import create

    return create(ProsodyConfig())


def prosody_engine_loads() -> int:
    """That it can be loaded in a process that computes prosody: that process's id."""
    prosody_engine()
    return os.getpid()


def tracks_of(path: str, piece: Span) -> Tracks:
    """Pitch and level of `piece` of the sound in the file at `path`, which all processes share."""
    tracks: Tracks = prosody_engine().tracks(np.load(path, mmap_mode="r"), piece)
    return tracks
