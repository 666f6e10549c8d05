"""The whole graph in this process: the server's own pipeline and deployment classes, called without Ray.

Under Ray each stage has its own interpreter; here all share one, but for prosody. So times are upper bounds of what the
stages need, and lack what Ray itself costs. A stage whose engine cannot be had is left out and named. Engines with
random weights compute, and their answers are replaced by the script's.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import sys
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from deployments import replica
from deployments.aligner.proportional import interpolated
from deployments.models import store
from deployments.models.config import ModelsConfig
from deployments.types import AudioInfo, Span, Transcript, Utterance
from tests.benchmarks import gpu_stages
from tests.benchmarks.gpu_plan import WITHOUT, Meter, Plan, Row
from tests.benchmarks.scripted_talk import LANGUAGE, scripted_talk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deployments.types import Tracks
    from tests.benchmarks.scripted_talk import Talk

DEPLOYMENTS: Final = {
    "detection": "speech_detector.deployment:SpeechDetector",
    "transcription": "transcriber.deployment:Transcriber",
    "alignment": "aligner.deployment:Aligner",
    "diarization": "diarizer.deployment:Diarizer",
    "emotion": "emotion.deployment:EmotionAnalyzer",
    "prosody": "prosody.deployment:ProsodyAnalyzer",
}
"""By the benchmark's names."""


def measure_graph(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """One job, then `plan.jobs` at once, warm."""
    replica.prepare = lambda **_: None  # this process is no replica: it keeps its priority and its threads
    replica.prepare_torch = lambda threads: None  # noqa: ARG005
    store.go_offline = lambda: None  # it is; and the machine's hub library may be another release than the product's
    stand_in_for_ray()
    graph = Graph(plan)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(graph.jobs(1, scripted_talk(min(gpu_stages.WARM_S, talk.duration_s))))
        for jobs in (1, plan.jobs):
            with meter.watch() as watched:
                results = asyncio.run(graph.jobs(jobs, talk))
            rows.append(
                Row(
                    stage=f"whole graph, {jobs} job{'s' * (jobs > 1)}",
                    precision="as above",
                    batch="as above",
                    seconds=watched.seconds,
                    audio_s=jobs * talk.duration_s,
                    peak_mb=watched.peak_mb,
                    note=graph.note(results),
                )
            )
    graph.close()
    return rows


def stand_in_for_ray() -> None:
    """Where Ray is missing or broken, define its names: errors that nobody raises, a decorator that changes nothing.

    The pipeline and the deployments import Ray, and here nothing of theirs calls it.
    """
    try:
        importlib.import_module("ray.serve")
    except ImportError:
        names = ("ray", "ray.exceptions", "ray.serve", "ray.serve.exceptions", "ray.util", "ray.util.metrics")
        for name in names:
            module: Any = ModuleType(name)
            module.__getattr__ = cache(_stand_in)
            sys.modules[name] = module
        sys.modules["ray"].serve = sys.modules["ray.serve"]  # type: ignore[attr-defined]
        sys.modules["ray.serve"].deployment = lambda **_: lambda cls: SimpleNamespace(func_or_class=cls)  # type: ignore[attr-defined]


def _stand_in(name: str) -> Any:
    if name.startswith("__"):  # whoever looks through all modules, as torch does, must find no file
        raise AttributeError(name)
    return type(name, (Exception,), {"__init__": _ignore, "set": _ignore})


def _ignore(*_: Any, **__: Any) -> None:
    pass


class Graph:
    """All deployments, their engines loaded."""

    def __init__(self, plan: Plan) -> None:
        self.missing = [stage for stage in plan.without if stage in DEPLOYMENTS]
        self._prosody = Prosody(plan.prosody_processes)
        self._configs: dict[str, Any] = {}
        self._stages: dict[str, Any] = {}
        for stage in DEPLOYMENTS:
            if stage not in self.missing:
                try:
                    self._stages[stage] = self._load(stage, plan)
                except Exception:  # noqa: BLE001  whatever is wrong with it, the others are measured
                    traceback.print_exc()
                    self.missing.append(stage)

    def _load(self, stage: str, plan: Plan) -> Any:
        """The deployment's object, over an engine with random weights."""
        if stage == "prosody":
            self._prosody.check()
            return self._prosody
        engine, config = gpu_stages.ENGINES[stage](plan)
        self._configs[stage] = config
        module, _, name = DEPLOYMENTS[stage].partition(":")
        deployment = importlib.import_module(f"deployments.{module}")
        for owner in (deployment, importlib.import_module(f"deployments.{module.partition('.')[0]}.registry")):
            owner.create = lambda *_, **__: engine  # type: ignore[attr-defined]
        models = ModelsConfig(allow_unpinned=True)
        more = {"detection": (), "transcription": (models, plan_aligner(plan))}.get(stage, (models,))
        return getattr(deployment, name).func_or_class(config, *more)

    def note(self, results: list[dict[str, Any]]) -> str:
        """What came out, and which stages are not in it."""
        segments = [segment for result in results for segment in result["segments"]]
        done = f"{len(segments)} segments, {sum(len(segment['words']) for segment in segments)} words"
        return f"{done}{WITHOUT}{', '.join(self.missing)}" if self.missing else done

    def close(self) -> None:
        self._prosody.close()

    async def jobs(self, count: int, talk: Talk) -> list[dict[str, Any]]:
        """The results of `count` jobs at once, each over the whole talk."""
        return await asyncio.gather(*(self._job(f"job-{number}", talk) for number in range(count)))

    async def _job(self, job_id: str, talk: Talk) -> dict[str, Any]:
        from serve_app.jobs.progress import ProgressMeter
        from serve_app.pipeline.pipeline import Pipeline
        from serve_app.pipeline.stage_client import StageHandles
        from serve_app.settings import Settings
        from serve_app.testing import FakeHandle
        from tests.support.fake_graph import job

        named = {"transcription": "transcriber", "emotion": "emotion"}
        configs = {named[stage]: config for stage, config in self._configs.items() if stage in named}
        settings = Settings(profile="local", **configs)
        handles = {name: FakeHandle(methods, takes_s=0) for name, methods in self._methods(talk).items()}
        asked = job(language=LANGUAGE, emotion_detection="emotion" in self._stages)
        stages = StageHandles(**{"aligner": None} | handles)
        job_n = replace(asked, job_id=job_id)
        pipeline = Pipeline(job_n, settings, stages, report_progress=ProgressMeter().report_progress)
        return await pipeline.run(spent_s=0.0)

    def _methods(self, talk: Talk) -> Mapping[str, Mapping[str, Callable[..., Any]]]:
        """The handles' methods: each stage computes, where it is there, and the script answers."""
        info = AudioInfo(duration_s=talk.duration_s, samples=len(talk.audio), sha256="")

        def computed(stage: str, method: str, says: Callable[..., Any]) -> Callable[..., Any]:
            async def call(*args: Any, **options: Any) -> Any:
                if stage not in self._stages:
                    return says(None, *args)
                return says(await getattr(self._stages[stage], method)(*args, **options), *args)

            return call

        def spoken(_: Any, _audio: Any, piece: Span) -> list[Span]:
            inside = [each for each in talk.sentences if piece.start_s <= each.start_s < piece.end_s]
            return [Span(start_s=each.start_s, end_s=each.end_s) for each in inside]

        def said(_: Any, _audio: Any, chunk: Span, *_more: Any) -> Transcript:
            inside = [each for each in talk.sentences if chunk.start_s <= (each.start_s + each.end_s) / 2 < chunk.end_s]
            utterances = tuple(
                Utterance(start_s=each.start_s, end_s=each.end_s, text=each.text, confidence=0.9) for each in inside
            )
            transcript = Transcript(language=LANGUAGE, utterances=utterances)
            return transcript if "alignment" in self._stages else interpolated(transcript)

        methods: dict[str, dict[str, Callable[..., Any]]] = {
            "extractor": {"prepare": lambda *_: info, "load": lambda *_: talk.audio},
            "detector": {"detect": computed("detection", "detect", spoken)},
            "transcriber": {"transcribe": computed("transcription", "transcribe", said)},
            "diarizer": {
                "segment": computed("diarization", "segment", lambda answer, *_: answer),
                "embed": computed("diarization", "embed", lambda answer, *_: answer),
                "cluster": self._clustered(talk),
            },
            "prosody": {"tracks": self._prosody.tracks, "measure": self._prosody.measure},
            "emotion": {"analyze": computed("emotion", "analyze", lambda answer, *_: answer)},
        }
        if "alignment" in self._stages:
            methods["aligner"] = {
                "align": computed("alignment", "align", lambda _, _audio, heard, *_more: interpolated(heard))
            }
        return methods

    def _clustered(self, talk: Talk) -> Callable[..., Any]:
        async def cluster(segmentations: Any, embeddings: Any) -> Any:
            if "diarization" in self._stages:
                await self._stages["diarization"].cluster(segmentations, gpu_stages.voices(embeddings))
            return talk.turns

        return cluster


def plan_aligner(plan: Plan) -> Any:
    """The aligner's settings: the Transcriber leaves the times of its languages to it."""
    from deployments.aligner.config import AlignerConfig

    return AlignerConfig(**plan.settings("aligner") | {"models": {LANGUAGE: plan.model("aligner")}})


class Prosody:
    """The ProsodyAnalyzer's methods in as many processes as production has replicas; 0: a thread of this process."""

    def __init__(self, processes: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, spawning) if processes else None

    def check(self) -> None:
        """Raise where the engine cannot be had."""
        if self._pool:
            self._pool.submit(engine_loads).result()
        else:
            engine_loads()

    async def tracks(self, audio: Any, piece: Span) -> Tracks:
        """Pitch and level of `piece`."""
        part = replace(piece, start_s=0.0, end_s=piece.duration_s)
        found: Tracks = await asyncio.get_running_loop().run_in_executor(self._pool, tracks_of, piece.of(audio), part)
        return replace(found, start_s=piece.start_s)

    async def measure(self, tracks: Tracks, segments: Any) -> Any:
        """Each word's part of them."""
        from deployments.prosody.words import measure

        return await asyncio.to_thread(measure, tracks, segments)

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()


@cache
def prosody_engine() -> Any:
    """The prosody engine of this process."""
    from deployments.prosody.config import ProsodyConfig
    from deployments.prosody.registry import create

    return create(ProsodyConfig())


def engine_loads() -> int:
    """That it can be loaded in a process that computes prosody: that process's id."""
    prosody_engine()
    return os.getpid()


def tracks_of(audio: Any, piece: Span) -> Tracks:
    """Pitch and level of `piece` of `audio`."""
    tracks: Tracks = prosody_engine().tracks(audio, piece)
    return tracks
