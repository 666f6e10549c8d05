"""The stages of the graph: the real extractor over a disk in memory, and engines that hear which video it was.

Every sample of a video's audio is the video's number, so a result tells whose it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from fsspec.implementations.memory import MemoryFileSystem
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from deployments.errors import AudioExtractionError, DeviceError, DownloadError, StuckError
from deployments.extraction import deployment as extraction
from deployments.extraction.protocol import AudioMissingError, Decoded
from deployments.net.download import Downloaded
from deployments.types import SAMPLE_RATE_HZ, Emotion, Span, Tracks, Transcript, Turn, Utterance, Word, WordProsody
from serve_app.pipeline.stage_client import StageHandles
from tests.simulation.loop import current
from tests.simulation.simulated_ray import Reply
from tests.simulation.virtual_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from random import Random

    from deployments.extraction.config import ExtractorConfig
    from tests.simulation.loop import Process
    from tests.simulation.simulated_ray import SimulatedRay

AUDIO_S = 2.0
SCRATCH = "memory://simulation"
BAD = 9000
"""Videos from this number on are no media files; from `MISSING` on their server answers 404."""
MISSING = 9500
EXTRACTOR = "AudioExtractor"


@dataclass(slots=True, kw_only=True)
class StageCall:
    """A call of a stage as the outside sees it."""

    at: float
    stage: str
    video: int
    caller: Process
    ended_at: float | None = None
    """When the answer left the stage; None for one that failed, hangs or was cancelled."""


def video_url(number: int, signature: int) -> str:
    return f"https://videos.example.com/{number}.mp4?X-Amz-Signature={signature:08x}"


def _number_of(url: str) -> int:
    return int(url.rpartition("/")[2].partition(".")[0])


def text_of(video: int) -> str:
    """What is said in a video."""
    return f"video{video}"


class Stages:
    """All of them. `faults` are the ways in which calls fail at the moment, by their probability."""

    def __init__(self, random: Random, ray: SimulatedRay, temp_dir: Path) -> None:
        self._random, self._ray = random, ray
        self._temp_dir = temp_dir
        self.calls: list[StageCall] = []
        self.work_s = self.download_s = (0.05, 2.0)
        """What a call takes, least and most."""
        self.faults: dict[str, float] = {}
        self._lost_at = 0.0
        self._extractor: Any = None
        self._process: Process | None = None
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
        extraction.download, extraction.create = self._download, lambda _: self._decode

    def start(self, config: ExtractorConfig) -> None:
        """Start the extractor's replica, in place of one that has died."""
        self._process = self._ray.spawn(EXTRACTOR)
        self._config = config
        self._extractor = self._ray.run_in(self._process, extraction.AudioExtractor.func_or_class, config)

    def kill_extractor(self) -> None:
        if self._process is not None:
            self._ray.end(self._process)
            self.start(self._config)

    def handles(self) -> StageHandles:
        names = ("detector", "transcriber", "diarizer", "prosody", "emotion")
        return StageHandles(
            extractor=StageHandle("extractor"), aligner=None, **{name: StageHandle(name) for name in names}
        )

    def scratch(self) -> list[str]:
        """What lies on the disk: audio files by job and run."""
        return sorted(MemoryFileSystem.store)

    def lose_audio(self) -> None:
        """Delete all of it, and what is in memory, as it is with a node that is replaced."""
        MemoryFileSystem.store.clear()
        self._lost_at = CLOCK.now

    def call(self, stage: str, method: str, args: Sequence[Any]) -> Reply:
        """Begin a call, as a handle's `remote` does: it returns at once."""
        ray, caller = self._ray, current()
        reply = Reply(asyncio.get_running_loop())
        if caller.ray_cut:
            ray.later(20.0, reply.fail, ActorDiedError())
        elif stage == "extractor":
            ray.later(ray.latency_s(), self._extract, method, args, reply, caller)
        else:
            ray.later(ray.latency_s(), self._begin, f"{stage}.{method}", args, reply, caller)
        return reply

    def _extract(self, method: str, args: Sequence[Any], reply: Reply, caller: Process) -> None:
        extractor, process = self._extractor, self._process
        if method == "prepare":
            self.calls.append(StageCall(at=CLOCK.now, stage="prepare", video=_number_of(args[2]), caller=caller))
        if process is None or process.dead:
            reply.fail(ActorDiedError())
            return
        self._ray.execute(process, getattr(extractor, method), tuple(args), reply, caller)

    def _begin(self, name: str, args: Sequence[Any], reply: Reply, caller: Process) -> None:
        reply.task = asyncio.get_running_loop().create_task(self._run(name, args, reply, caller))
        reply.on_cancel = reply.task.cancel

    async def _run(self, name: str, args: Sequence[Any], reply: Reply, caller: Process) -> None:
        if any(isinstance(each, Reply) and each.called_at < self._lost_at for each in args):
            reply.fail(AudioMissingError())
            return
        try:
            given = [await each if isinstance(each, Reply) else each for each in args]
        except Exception as error:  # noqa: BLE001 - an argument that could not be had fails the call
            reply.fail(error)
            return
        video = int(given[0][0]) if isinstance(given[0], np.ndarray) else int(_video_of(given))
        call = StageCall(at=CLOCK.now, stage=name, video=video, caller=caller)
        self.calls.append(call)
        fault = next((kind for kind, share in self.faults.items() if self._random.random() < share), None)
        if fault == "hangs":
            await asyncio.sleep(1e9)
        await asyncio.sleep(self._random.uniform(*self.work_s))
        if fault is not None:
            reply.fail(FAULTS[fault]())
            return
        call.ended_at = CLOCK.now
        answer = ENGINES[name](*given)
        await asyncio.sleep(self._ray.latency_s())
        reply.answer(answer)

    async def _download(self, url: str, to: Path, **_: Any) -> Downloaded:
        number = _number_of(url)
        self.calls.append(StageCall(at=CLOCK.now, stage="download", video=number, caller=current()))
        await asyncio.sleep(self._random.uniform(*self.download_s))
        if number >= MISSING:
            raise DownloadError(reason="http_404")
        to.write_bytes(str(number).encode())  # noqa: ASYNC240 - in memory
        return Downloaded(size_bytes=1, etag=None, cuts=0)

    def _decode(self, video: Path, **_: Any) -> Decoded:
        number = int(video.read_bytes())
        if number >= BAD:
            raise AudioExtractionError(reason="not_media")
        return Decoded(audio=np.full(int(AUDIO_S * SAMPLE_RATE_HZ), number, np.int16), duration_s=AUDIO_S)


STAGES: list[Stages] = []
"""Those of the present run: handles are pickled, and find them again."""


class StageHandle:
    """What production code holds of a deployment. Pickles by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        return StageHandle, (self._name,)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        return SimpleNamespace(remote=lambda *args, **_: STAGES[-1].call(self._name, method, args))


FAULTS: dict[str, Callable[[], Exception]] = {
    "dies": ActorDiedError,
    "busy": lambda: BackPressureError(num_queued_requests=9, max_queued_requests=9),
    "device": DeviceError,
    "stuck": lambda: StuckError(batched=False),
    "raises": lambda: RuntimeError("a stage's own fault"),
    "audio is gone": AudioMissingError,
    "hangs": Exception,
}


def _video_of(given: Sequence[Any]) -> int:
    """The video of a call that gets no audio but what others have made of it."""
    first = given[0]
    if isinstance(first, list):
        first = first[0]
    return int(first if not isinstance(first, Tracks) else first.level_dbfs[0])


def _transcribe(audio: Any, chunk: Span, language: str, *_: Any) -> Transcript:
    text = text_of(int(audio[0]))
    words = (Word(start_s=chunk.start_s, end_s=chunk.end_s, text=text, probability=0.9),)
    said = Utterance(start_s=chunk.start_s, end_s=chunk.end_s, text=text, words=words)
    return Transcript(language=language, utterances=(said,))


def _tracks(audio: Any, piece: Span) -> Tracks:
    frames = 4
    level = np.full(frames, float(audio[0]), np.float32)
    return Tracks(start_s=piece.start_s, f0_hz=np.zeros(frames, np.float32), level_dbfs=level)


ENGINES: dict[str, Callable[..., Any]] = {
    "detector.detect": lambda _audio, piece: [Span(start_s=piece.start_s, end_s=piece.end_s)],
    "transcriber.transcribe": _transcribe,
    "diarizer.segment": lambda audio, _piece: int(audio[0]),
    "diarizer.embed": lambda _audio, segmentation: segmentation,
    "diarizer.cluster": lambda *_: [Turn(start_s=0, end_s=AUDIO_S, speaker=1)],
    "prosody.tracks": _tracks,
    "prosody.measure": lambda _tracks, segments: [
        (WordProsody(volume_db=-20.0, pitch_hz=200.0, voiced=True),) * len(segment.words) for segment in segments
    ],
    "emotion.analyze": lambda _audio, _tracks, segments, *_: [Emotion(label="happy", confidence=0.4)] * len(segments),
}
