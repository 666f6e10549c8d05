"""Two jobs on one replica of a stage that batches over jobs: what happens to one, or to the replica, costs no other."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments import replica
from deployments.aligner import deployment as aligner
from deployments.aligner.config import AlignerConfig
from deployments.diarizer import deployment as diarizer
from deployments.emotion import deployment as emotion
from deployments.emotion.config import EmotionConfig
from deployments.errors import DeviceError, StuckError
from deployments.models.config import ModelsConfig
from deployments.transcriber import deployment as transcriber
from deployments.transcriber.config import TranscriberConfig
from deployments.types import SAMPLE_RATE_HZ, Emotion, Segment, Span, Transcript
from serve_app.pipeline import stage_calls as calls
from serve_app.pipeline.stage_calls import StageCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE_S = 10
UNHEALTHY_AFTER = 3
"""Ray Serve's own constant: so many failed health checks in a row."""


class Engine:
    """An engine of each kind. Every second of sound is a number, which is the answer. Each batch waits for a `go`."""

    def __init__(self, *, go: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(go)
        self.error: Exception | None = None

    def batch(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        if self.error:
            raise self.error
        return numbers

    def transcribe(self, chunks: Sequence[Any]) -> list[Transcript]:
        numbers = [int(chunk.audio[0]) for chunk in chunks]
        return [Transcript(language=str(number)) for number in (self.batch(numbers) if numbers else ())]

    def detect(self, chunks: Sequence[Any], *, brief: bool = False) -> list[Any]:  # noqa: ARG002 - the protocol
        assert not chunks
        return []

    def align(self, items: Sequence[Any]) -> list[Transcript]:
        return [Transcript(language=str(number)) for number in self.batch([int(item.audio[0]) for item in items])]

    def cut(self, audio: Any, _tracks: None, _segments: Sequence[Segment]) -> list[list[int]]:
        return [[int(audio[0])]]

    def judge(self, items: Sequence[int]) -> list[Any]:
        try:
            return [Emotion(label=str(number), confidence=1) for number in self.batch(list(items))]
        except RuntimeError:  # its back-off is the engine's own
            return [DeviceError() for _ in items]

    def mood(self, answers: Sequence[Emotion]) -> Emotion:
        return answers[0]

    def weight_s(self, _: int) -> float:
        return 0.0

    def check(self) -> None:
        if self.error:
            raise DeviceError from self.error

    async def is_busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


class Stage:
    """One kind of stage: starts replicas on engines that are given, and asks one for a number."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self._patch = name, monkeypatch

    def start(self, engine: Engine) -> Any:
        models = ModelsConfig(allow_unpinned=True)
        if self.name == "transcriber":
            self._patch.setattr(transcriber, "create", lambda *_: engine)
            return transcriber.Transcriber.func_or_class(TranscriberConfig(batch_size=8), models, AlignerConfig())
        if self.name == "aligner":
            self._patch.setattr(aligner, "create", lambda *_, **__: engine)
            return aligner.Aligner.func_or_class(AlignerConfig(), models)
        self._patch.setattr(emotion, "create", lambda _: engine)
        return emotion.EmotionAnalyzer.func_or_class(EmotionConfig(), models)

    async def ask(self, replica: Any, job_id: str, number: int) -> str:
        audio = np.full(SAMPLE_RATE_HZ, number, np.int16)
        if self.name == "transcriber":
            heard: Transcript = await replica.transcribe(audio, Span(start_s=0, end_s=1), "en", job_id)
            return heard.language
        if self.name == "aligner":
            aligned: Transcript = await replica.align(audio, Transcript(language="en"), job_id)
            return aligned.language
        segment = Segment(start_s=0, end_s=1, speaker=0, words=())
        [judged] = await replica.analyze(audio, None, [segment], job_id)
        return str(judged.label)


@pytest.fixture(params=["transcriber", "aligner", "emotion"])
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Replicas without Ray, whose process keeps its manners."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    return Stage(request.param, monkeypatch)


async def queued(replica: Any, count: int) -> None:
    """Wait until so many items wait for a batch."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(len, replica._batcher._queues.values())) < count:  # noqa: ASYNC110  nobody is told of it
            await asyncio.sleep(0)


async def test_a_cancelled_job_does_not_harm_its_neighbour_in_the_batch(stage: Stage) -> None:
    """Both jobs' items are being computed when one job goes; the other gets all its own answers, and those after."""
    engine = Engine()
    shared = stage.start(engine)

    def asked(job_id: str, *numbers: int) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(stage.ask(shared, job_id, number)) for number in numbers]

    first = asked("first", 9)
    await engine.is_busy()
    gone, stays = asked("gone", 1, 2, 3), asked("stays", 11, 12, 13)
    await queued(shared, 6)
    engine.go.release()
    assert await asyncio.gather(*first) == ["9"]
    await engine.is_busy()
    assert sorted(engine.batches[1]) == [1, 2, 3, 11, 12, 13]
    later = asked("gone", 4) + asked("stays", 14)
    await queued(shared, 2)
    for task in (*gone, later[0]):
        task.cancel()
    engine.go.release(10)
    assert await asyncio.gather(*stays, later[1]) == ["11", "12", "13", "14"]
    assert engine.batches[2:] == [[14]]


async def test_d9_a_stuck_engine_is_told_as_such(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """D9: the caller hears that it got stuck in a batch, and not that the recognition or alignment failed."""

    class Stuck:
        def __init__(self, *, longest_s: float) -> None:
            assert longest_s > 0

        async def __call__(self, *_: object) -> None:
            raise StuckError

    monkeypatch.setattr(replica, "ComputeThread", Stuck)
    with pytest.raises(StuckError) as told:
        await stage.ask(stage.start(Engine()), "a", 1)
    assert told.value.batched


class Handle:
    """Routes to the first healthy of `replicas`; one whose health check fails is replaced, as Serve does."""

    def __init__(self, stage: Stage, replicas: list[Any]) -> None:
        self._stage, self._replicas = stage, replicas

    def call(self, job_id: str, number: int) -> Callable[[], Response]:
        return lambda: Response(self._answer(job_id, number))

    async def _answer(self, job_id: str, number: int) -> str:
        here = self._replicas[0]
        try:
            return await self._stage.ask(here, job_id, number)
        except DeviceError:
            with pytest.raises(DeviceError):
                await healthy(here)
            if here is self._replicas[0]:  # the first to notice
                self._replicas.pop(0)
            raise


async def healthy(replica: Any) -> None:
    """As Serve asks, whether the method is async or not."""
    answer = replica.check_health()
    if answer is not None:
        await answer


class Response:
    """What a handle's call gives."""

    def __init__(self, work: Any) -> None:
        self._task = asyncio.ensure_future(work)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


async def test_a_recycled_replica_costs_its_jobs_a_retry(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device dies under a batch of two jobs: both get all their answers from the next replica, none is made up."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.001)
    dying, next_one = Engine(), Engine(go=100)
    replicas = [stage.start(dying), stage.start(next_one)]
    await healthy(replicas[0])
    handle = Handle(stage, replicas)
    jobs = {name: StageCalls(name, 8) for name in "ab"}
    asked = [
        asyncio.create_task(jobs[name].call(handle.call(name, number))) for number, name in enumerate("ababab", start=1)
    ]
    await dying.is_busy()
    await queued(replicas[0], 6 - len(dying.batches[0]))
    dying.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    dying.go.release(100)
    assert await asyncio.gather(*asked) == list("123456")
    assert sorted(number for batch in next_one.batches for number in batch) == [1, 2, 3, 4, 5, 6]
    await healthy(replicas[0])


@pytest.mark.parametrize(
    "deployed", [transcriber.Transcriber, aligner.Aligner, diarizer.Diarizer, emotion.EmotionAnalyzer], ids=str
)
def test_a_sick_replica_is_gone_before_the_drivers_give_up(deployed: Any) -> None:
    """Three failed health checks, and one that was just passed, take less time than the retries of a call."""
    waits_s = sum(calls.FIRST_WAIT_S * 2**attempt * 0.8 for attempt in range(calls.RETRIES))
    period_s = deployed._deployment_config.health_check_period_s
    assert (UNHEALTHY_AFTER + 1) * period_s < waits_s
