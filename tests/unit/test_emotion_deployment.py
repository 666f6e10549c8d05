"""The emotion stage's replica without Ray: segments of all jobs share batches, and no job hears of another."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments import replica
from deployments.emotion import deployment
from deployments.emotion.config import EmotionConfig
from deployments.emotion.protocol import analyze
from deployments.emotion.registry import create
from deployments.errors import DeviceError, ModelLoadError
from deployments.models.config import ModelsConfig
from deployments.types import SAMPLE_RATE_HZ, Audio, Emotion, Segment, Tracks, Word
from tests.support.synthetic_voice import MANNERS, speak

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Path(__file__).parents[1] / "models" / "emotion"
CONFIG = EmotionConfig(engine="wav2vec2", model=str(MODEL))
PATIENCE_S = 10


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a replica's object without Ray; its process keeps its manners."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    return partial(deployment.EmotionAnalyzer.func_or_class, models=ModelsConfig(allow_unpinned=True))


def video(seed: int, lengths_s: Sequence[float]) -> tuple[Audio, list[Segment]]:
    """Clips of changing manners one after the other, read-only, a segment each."""
    draw = np.random.default_rng(seed)
    manners = list(MANNERS.values())
    clips = [speak(draw, manners[(seed + i) % len(manners)], length_s) for i, length_s in enumerate(lengths_s)]
    audio = np.concatenate(clips)
    audio.flags.writeable = False
    ends_s = np.cumsum(lengths_s)
    return audio, [
        Segment(start_s=float(end_s - length_s), end_s=float(end_s), speaker=0, words=())
        for end_s, length_s in zip(ends_s, lengths_s, strict=True)
    ]


class Engine:
    """An item is a segment's first sample, its answer a mood of that name; remembers batches, fails as told.

    Each batch waits for a `go`.
    """

    def __init__(self, *, go: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(go)
        self.fault: Exception | None = None

    def cut(self, audio: Audio, tracks: Tracks | None, segments: Sequence[Segment]) -> list[list[int]]:
        assert tracks is None
        return [[int(segment.of(audio)[0])] for segment in segments]

    def judge(self, items: Sequence[int]) -> list[Emotion | Exception]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.go.acquire(timeout=PATIENCE_S)
        if self.fault:
            return [DeviceError() for _ in items]
        return [ValueError(item) if item < 0 else Emotion(label=str(item), confidence=1) for item in items]

    def mood(self, answers: Sequence[Emotion]) -> Emotion | None:
        return answers[0]

    def weight_s(self, _: int) -> float:
        return 1.0

    def check(self) -> None:
        if self.fault:
            raise self.fault

    async def is_busy(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


async def queued(emotion: Any, *names: str) -> None:
    """Wait until each of these jobs has items that wait for a batch."""
    async with asyncio.timeout(PATIENCE_S):
        while not set(names) <= emotion._batcher._queues.keys():  # noqa: ASYNC110  nobody is told of it
            await asyncio.sleep(0)


def numbered(*numbers: int) -> tuple[Audio, list[Segment]]:
    """A video with a segment of a second for each of `numbers`, of which all its samples are."""
    audio = np.repeat(np.array(numbers, np.int16), SAMPLE_RATE_HZ)
    return audio, [Segment(start_s=i, end_s=i + 1, speaker=0, words=()) for i in range(len(numbers))]


async def test_two_jobs_share_batches_and_get_what_each_gets_alone(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of the same length go through the network together, whosever they are; no answer changes by 1e-5."""
    lengths_s = (20.0, 1.0, 2.0, 1.0, 0.4, 3.0, 31.0, 1.0, 2.0)
    jobs = {"a": video(1, lengths_s), "b": video(2, lengths_s[::-1])}
    engine = create(CONFIG)
    alone = {name: analyze(engine, audio, None, segments) for name, (audio, segments) in jobs.items()}
    monkeypatch.setattr(deployment, "create", lambda _: engine)
    forward, forwarded, both_wait = engine._backoff._work, [], threading.Event()  # type: ignore[attr-defined]

    def heard(windows: Sequence[Audio]) -> Any:
        assert both_wait.wait(PATIENCE_S)
        forwarded.append({name for name, (audio, _) in jobs.items() for w in windows if np.shares_memory(w, audio)})
        return forward(windows)

    engine._backoff._work = heard  # type: ignore[attr-defined]
    emotion = start(CONFIG.model_copy(update={"batch_s": 20}))
    asked = [asyncio.create_task(emotion.analyze(*of(jobs[name]), name)) for name in jobs]
    await queued(emotion, *jobs)
    both_wait.set()
    together = await asyncio.gather(*asked)
    for name, judged in zip(jobs, together, strict=True):
        assert len({each.label for each in judged}) > 1
        for each, before in zip(judged, alone[name], strict=True):
            assert (each.label, each.confidence) == (before.label, pytest.approx(before.confidence, abs=1e-5))
    await emotion.check_health()
    assert repr(emotion) == "EmotionAnalyzer(emotion)"
    assert {"a", "b"} in forwarded


def of(job: tuple[Audio, list[Segment]]) -> tuple[Audio, None, list[Segment]]:
    return job[0], None, job[1]


async def test_jobs_are_served_in_turn(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large job and a small one: each batch, of `batch_s` of sound, has of both as long as both wait."""
    engine = Engine()
    monkeypatch.setattr(deployment, "create", lambda _: engine)
    emotion = start(CONFIG.model_copy(update={"batch_s": 4}))
    large = asyncio.create_task(emotion.analyze(*of(numbered(*range(100, 112))), "large"))
    await engine.is_busy()
    small = asyncio.create_task(emotion.analyze(*of(numbered(1, 2, 3)), "small"))
    await queued(emotion, "small")
    engine.go.release(100)
    assert [each.label for each in await small] == ["1", "2", "3"]
    assert [each.label for each in await large] == [str(number) for number in range(100, 112)]
    large_alone, first, second, *rest = engine.batches
    assert (large_alone, first, second) == ([100, 101, 102, 103], [104, 1, 105, 2], [106, 3, 107, 108])
    assert [len(batch) for batch in rest] == [3]


async def test_a_job_that_goes_or_fails_costs_its_neighbour_nothing(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three jobs in one running batch: one is cancelled, one has an item that fails, the third gets all its moods."""
    engine = Engine()
    monkeypatch.setattr(deployment, "create", lambda _: engine)
    emotion = start(CONFIG)
    first = asyncio.create_task(emotion.analyze(*of(numbered(100)), "first"))
    await engine.is_busy()
    jobs = {"gone": (1, 2), "failing": (3, -4), "whole": (5, 6)}
    asked = {
        name: asyncio.create_task(emotion.analyze(*of(numbered(*numbers)), name)) for name, numbers in jobs.items()
    }
    await queued(emotion, *jobs)
    engine.go.release()
    await first
    await engine.is_busy()
    assert sorted(engine.batches[-1]) == [-4, 1, 2, 3, 5, 6]
    asked["gone"].cancel()
    engine.go.release()
    assert [each.label for each in await asked["whole"]] == ["5", "6"]
    with pytest.raises(ValueError, match="-4"):
        await asked["failing"]
    await emotion.check_health()


async def test_a_lost_device_is_told(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job in the batch hears that another replica may do better, and the health check fails."""
    engine = Engine(go=100)
    monkeypatch.setattr(deployment, "create", lambda _: engine)
    emotion = start(CONFIG)
    await emotion.check_health()
    engine.fault = DeviceError()
    asked = (emotion.analyze(*of(numbered(1, 2)), name) for name in "ab")
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DeviceError] * 2
    with pytest.raises(DeviceError):
        await emotion.check_health()


async def test_the_embedded_engine_judges_by_tracks(start: Any) -> None:
    """The rules give through the replica what they give alone; without tracks they say so."""
    config = EmotionConfig()
    words = tuple(Word(start_s=i / 4, end_s=i / 4 + 0.2, text=text) for i, text in enumerate(("this", "is", "awful")))
    segments = [
        Segment(start_s=start_s, end_s=start_s + 1, speaker=0, words=said, language="en")
        for start_s, said in enumerate((words, ()))
    ]
    tracks = Tracks(start_s=0, f0_hz=np.full(200, 200, np.float32), level_dbfs=np.full(200, -20, np.float32))
    audio = np.zeros(0, np.int16)
    emotion = start(config)
    judged = await emotion.analyze(audio, tracks, segments, "a")
    assert judged == analyze(create(config), audio, tracks, segments)
    assert judged[0] is not None
    assert judged[1] is None
    with pytest.raises(ValueError, match="tracks"):
        await emotion.analyze(audio, None, segments, "a")
    await emotion.check_health()


def test_a_device_that_is_not_there_ends_the_start(start: Any) -> None:
    """The replica does not come up, and says which setting is wrong."""
    with pytest.raises(ModelLoadError, match=r"^emotion\.device is cuda:99"):
        start(CONFIG.model_copy(update={"device": "cuda:99"}))
