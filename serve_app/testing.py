"""A server of fakes: the whole graph with engines that load no model and answer in milliseconds, for tests of yours.

    import_path: serve_app.testing:build

in a Serve config is the server as it is (HTTP, database, job actors, replicas, batches, ffmpeg, callbacks), and its
results are the same for the same audio: two voices in turn, words named after the samples under it.
`fake_stages` is the graph without Ray, for a pipeline in the test's own process.

The file that the environment variable `FAKE_ENGINES` names slows the engines down or makes them fail while they run;
`Faults` has its fields. Knows nothing of jobs, HTTP or the database. Serve passes `Settings` only where annotations are
classes, so this module does without `from __future__ import annotations`.
"""

import asyncio
import ctypes
import inspect
import json
import os
import random
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Self

import numpy as np
from ray.serve import Application, Deployment

from deployments import logs, replica
from deployments.aligner.protocol import AlignItem
from deployments.diarizer.protocol import Embeddings, Segmentation
from deployments.emotion.protocol import analyze
from deployments.transcriber.protocol import Chunk
from deployments.types import (
    FRAMES_PER_S,
    SAMPLE_RATE_HZ,
    Audio,
    Emotion,
    Segment,
    Span,
    Tracks,
    Transcript,
    Turn,
    Utterance,
    Word,
    WordProsody,
)
from serve_app.pipeline.stage_client import StageHandles
from serve_app.settings import Settings

IMPORT_PATH: Final = f"{__name__}:build"
FAULTS_VARIABLE: Final = "FAKE_ENGINES"
"""Names a JSON file with the fields of `Faults`; replicas inherit it, and read the file anew in each call."""
SENTENCE_S, PAUSE_S = 1.5, 0.5
TURN_S = 2.0
WORDS_PER_S = 2.0
WORDS_A_SENTENCE = 4
WORD_PROBABILITY = 0.9
LANGUAGE = "en"
MOODS = ("neutral", "happy", "sad")
PROSODY = WordProsody(volume_db=-20.0, pitch_hz=200.0, voiced=True)
WINDOW_STEP_S, WINDOW_FRAMES, WINDOW_SPEAKERS, VOICE_DIMENSION = 0.5, 293, 3, 256
"""The shapes of pyannote's answers, so that what passes between the calls has its real size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What the fake engines do wrong."""

    stage_s: tuple[float, float] = (0.0, 0.0)
    """Least and most seconds that a stage takes for a job of some 20 s of audio, drawn anew for each call."""
    slow_peak: int = 1 << 15
    """Samples from this value on cost the recogniser `slow_s` for each chunk that has any."""
    slow_s: float = 3.0
    stuck_peak: int = 1 << 15
    """From this value on the recogniser does not come back, as native code does that hangs."""

    @classmethod
    def now(cls) -> Self:
        """Read them from the file; none where there is no file."""
        path = os.environ.get(FAULTS_VARIABLE)
        return cls(**json.loads(Path(path).read_text(encoding="utf-8"))) if path else cls()

    @staticmethod
    def write(path: Path, **fields: Any) -> None:
        """Replace the file at once, so that no engine reads a half of it."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(fields), encoding="utf-8")
        new.rename(path)


def _take_time(calls: int = 1) -> None:
    """Sleep for one of a job's `calls` at a stage, so that all stages are equally busy."""
    time.sleep(random.uniform(*Faults.now().stage_s) / calls)  # noqa: S311 - no secret


class FakeDetector:
    """Finds sentences with pauses between them."""

    def detect(self, _audio: Audio, piece: Span) -> list[Span]:
        """Cut `piece` into sentences."""
        _take_time()
        starts_s = np.arange(piece.start_s, piece.end_s, SENTENCE_S + PAUSE_S).tolist()
        return [Span(start_s=start_s, end_s=min(start_s + SENTENCE_S, piece.end_s)) for start_s in starts_s]


class FakeRecognizer:
    """Hears two words per second, named after the samples under it: the audio of another job would show."""

    def __init__(self, timed_elsewhere: frozenset[str] = frozenset()) -> None:
        self._times_words = LANGUAGE not in timed_elsewhere

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """One utterance per chunk; its words have no times where the Aligner is to time them."""
        return [self._transcript(chunk) for chunk in chunks]

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:  # noqa: ARG002
        """English, without a doubt."""
        return [{LANGUAGE: 1.0} for _ in chunks]

    def _transcript(self, chunk: Chunk) -> Transcript:
        _take_time(3)
        self._fail(chunk)
        parts = np.array_split(chunk.audio, max(1, round(len(chunk.audio) / SAMPLE_RATE_HZ * WORDS_PER_S)))
        names = [f"w{zlib.crc32(np.ascontiguousarray(part).tobytes()):08x}" for part in parts]
        text = " ".join(name + "." * (number % WORDS_A_SENTENCE == 0) for number, name in enumerate(names, start=1))
        end_s = chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ
        said = Utterance(start_s=chunk.start_s, end_s=end_s, text=text, confidence=WORD_PROBABILITY)
        return Transcript(language=LANGUAGE, utterances=(_timed(said) if self._times_words else said,))

    @staticmethod
    def _fail(chunk: Chunk) -> None:
        faults, peak = Faults.now(), int(np.abs(chunk.audio.astype(np.int32)).max(initial=0))
        if peak >= faults.stuck_peak:
            ctypes.CDLL(None).sleep(1000)  # without Python's lock, as torch and CTranslate2 compute
        elif peak >= faults.slow_peak:
            time.sleep(faults.slow_s)


def _timed(utterance: Utterance) -> Utterance:
    """`utterance` with words of equal length."""
    texts = utterance.text.split()
    edges_s = np.linspace(utterance.start_s, utterance.end_s, len(texts) + 1).tolist()
    words = (
        Word(start_s=start_s, end_s=end_s, text=text, probability=WORD_PROBABILITY)
        for text, (start_s, end_s) in zip(texts, pairwise(edges_s), strict=True)
    )
    return replace(utterance, words=tuple(words))


class FakeAligner:
    """Gives the words of an utterance equal lengths."""

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        """Time the words of each item."""
        _take_time(3)
        return [replace(each.transcript, utterances=tuple(map(_timed, each.transcript.utterances))) for each in items]

    def check(self) -> None:
        """Never fail."""


class FakeDiarizer:
    """Hears two voices in turn."""

    def segment(self, audio: Audio, piece: Span) -> Segmentation:
        """Answer for each window that starts in `piece`, all speakers active."""
        _take_time(3)
        first, last = (round(at_s / WINDOW_STEP_S) for at_s in (piece.start_s, piece.end_s))
        scores = np.ones((max(1, last - first), WINDOW_FRAMES, WINDOW_SPEAKERS), np.float32)
        return Segmentation(first_window=first, duration_s=len(audio) / SAMPLE_RATE_HZ, scores=scores)

    def embed(self, _audio: Audio, segmentation: Segmentation) -> Embeddings:
        """Answer with the same vector for each speaker of each window."""
        _take_time(3)
        vectors = np.ones((len(segmentation.scores), WINDOW_SPEAKERS, VOICE_DIMENSION), np.float32)
        return Embeddings(first_window=segmentation.first_window, vectors=vectors)

    def cluster(self, segmentations: Sequence[Segmentation], _embeddings: object, **_counts: object) -> list[Turn]:
        """Let two voices take turns."""
        _take_time(3)
        end_s = segmentations[0].duration_s
        starts_s = np.arange(0, end_s, TURN_S).tolist()
        return [
            Turn(start_s=start_s, end_s=min(start_s + TURN_S, end_s), speaker=number % 2)
            for number, start_s in enumerate(starts_s)
        ]

    def check(self) -> None:
        """Never fail."""


class FakeProsody:
    """Hears one tone of one level."""

    def tracks(self, _audio: Audio, piece: Span) -> Tracks:
        """Answer for the frames of `piece`."""
        _take_time(2)
        frames = round(piece.duration_s * FRAMES_PER_S)
        level_dbfs = np.full(frames, PROSODY.volume_db, np.float32)
        return Tracks(start_s=piece.start_s, f0_hz=np.full(frames, PROSODY.pitch_hz, np.float32), level_dbfs=level_dbfs)


def measure(_tracks: Tracks, segments: Sequence[Segment]) -> list[tuple[WordProsody, ...]]:
    """Answer with the tone for each word."""
    _take_time(2)
    return [(PROSODY,) * len(segment.words) for segment in segments]


class FakeEmotion:
    """Judges a mood by the speaker's number."""

    def cut(self, _audio: Audio, _tracks: Tracks | None, segments: Sequence[Segment]) -> list[list[Any]]:
        """Take each segment as a whole."""
        return [[segment.speaker] for segment in segments]

    def judge(self, items: Sequence[Any]) -> list[Any]:
        """Choose a mood for each item."""
        _take_time()
        return [MOODS[speaker % len(MOODS)] for speaker in items]

    def mood(self, answers: Sequence[Any]) -> Emotion | None:
        """Return the only answer."""
        return Emotion(label=answers[0], confidence=0.5)

    def weight_s(self, _item: Any) -> float:
        """Weigh each the same."""
        return 1.0

    def check(self) -> None:
        """Never fail."""


ENGINES: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = {
    "AudioExtractor": {},
    "SpeechDetector": {"deployments.speech_detector.registry:create": lambda _: FakeDetector()},
    "Transcriber": {"deployments.transcriber.deployment:create": lambda _, elsewhere: FakeRecognizer(elsewhere)},
    "Aligner": {"deployments.aligner.deployment:create": lambda *_: FakeAligner()},
    "Diarizer": {"deployments.diarizer.registry:create": lambda _: FakeDiarizer()},
    "ProsodyAnalyzer": {
        "deployments.prosody.registry:create": lambda _: FakeProsody(),
        "deployments.prosody.words:measure": measure,
    },
    "EmotionAnalyzer": {"deployments.emotion.deployment:create": lambda _: FakeEmotion()},
}
"""Per deployment, what is replaced in its replicas (`module:name`), and by what."""


def build(args: Settings) -> Application:
    """Build the application over fake engines. Models that the settings name are looked for and not loaded."""
    from serve_app import app

    for name in ENGINES:
        setattr(app, name, with_fakes(getattr(app, name)))
    return app.build(args)


def with_fakes(deployment: Deployment) -> Deployment:
    """Return `deployment` with its engine replaced in each replica before that is made."""
    name, original = deployment.name, deployment.func_or_class

    class Fake(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            replace_engines(name)
            super().__init__(*args, **options)

    return deployment.options(func_or_class=Fake)


def replace_engines(deployment: str) -> None:
    """Replace what computes in `deployment`, in this process, and what imports torch: a replica is up in a second."""
    for place, fake in ENGINES[deployment].items():
        module, _, name = place.partition(":")
        setattr(sys.modules.setdefault(module, ModuleType(module)), name, fake)
    replica.prepare_torch = lambda threads: None  # noqa: ARG005
    replica.prepare = lambda **_: logs.configure()  # no idle priority: what computes nothing disturbs no other


class Response:
    """What a handle's call returns: awaitable, more than once, and accepted as an argument of another call."""

    def __init__(self, work: Any) -> None:
        self._task = asyncio.ensure_future(work)

    def __await__(self) -> Any:
        return asyncio.shield(self._task).__await__()

    def cancel(self) -> None:
        """Cancel the call."""
        self._task.cancel()


class FakeHandle:
    """A deployment's handle whose methods are functions of this process, plain ones or coroutine functions.

    `calls` has their names in order, `most_busy` is how many were under way at once at most. `answered` is called with
    the name of each method that has returned.
    """

    def __init__(
        self,
        methods: Mapping[str, Callable[..., Any]] | None = None,
        *,
        takes_s: float = 0.002,
        answered: Callable[[str], None] = lambda _: None,
        **more: Callable[..., Any],
    ) -> None:
        self._methods = {**(methods or {}), **more}
        self._takes_s = takes_s
        self._answered = answered
        self.calls: list[str] = []
        self.busy = self.most_busy = 0

    def __getattr__(self, name: str) -> Any:
        function = self._methods[name]

        class Method:
            @staticmethod
            def remote(*args: Any, **options: Any) -> Response:
                return Response(self._call(name, function, args, options))

        return Method

    async def _call(self, name: str, function: Callable[..., Any], args: Sequence[Any], options: Any) -> Any:
        self.calls.append(name)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self._takes_s)
            answer = function(*[await each if isinstance(each, Response) else each for each in args], **options)
            if inspect.isawaitable(answer):
                answer = await answer
        finally:
            self.busy -= 1
        self._answered(name)
        return answer


def fake_stages(*, answered: Callable[[str], None] = lambda _: None, **replaced: Any) -> StageHandles:
    """Return handles of the fake engines behind the deployments' methods, but for those `replaced`.

    One of these has to be `extractor`. The Aligner times the words, as with `aligner.engine: ctc`.
    """
    recognizer, aligner = FakeRecognizer(frozenset({LANGUAGE})), FakeAligner()
    diarizer, emotion = FakeDiarizer(), FakeEmotion()

    def transcribe(audio: Audio, span: Span, language: str, _job_id: str, _speech: Any = None, **_: Any) -> Any:
        return recognizer.transcribe([Chunk(audio=span.of(audio), start_s=span.start_s, language=language)])[0]

    methods: dict[str, dict[str, Callable[..., Any]]] = {
        "detector": {"detect": FakeDetector().detect},
        "transcriber": {"transcribe": transcribe, "detect_language": lambda *_, **__: {LANGUAGE: 1.0}},
        "aligner": {
            "align": lambda audio, heard, *_, **__: aligner.align([AlignItem(audio=audio, transcript=heard)])[0]
        },
        "diarizer": {"segment": diarizer.segment, "embed": diarizer.embed, "cluster": diarizer.cluster},
        "prosody": {"tracks": FakeProsody().tracks, "measure": measure},
        "emotion": {"analyze": lambda audio, tracks, segments, *_, **__: analyze(emotion, audio, tracks, segments)},
    }
    handles: dict[str, Any] = {stage: FakeHandle(each, answered=answered) for stage, each in methods.items()}
    return StageHandles(**handles | replaced)
