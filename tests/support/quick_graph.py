"""The server's graph with engines that wait a moment and compute nothing: Serve's `import_path` in a config.

Everything else is real: replicas, calls, ffmpeg, drivers, database, callbacks. A replica imports no torch, so that it
is back seconds after it was killed, and what it answers depends on the audio's length only, so that a job's result
is the same whatever happened to it. Serve passes `Settings` only where annotations are classes, so this module does
without `from __future__ import annotations`.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ray.serve import Application, Deployment

from deployments import logs, replica
from deployments.prosody.words import UNKNOWN
from deployments.types import FRAMES_PER_S, SAMPLE_RATE_HZ, Span, Tracks, Transcript, Turn, Utterance, Word
from serve_app import app
from serve_app.settings import Settings

IMPORT_PATH = f"{__name__}:build"
EARS = {
    "transcriber": {"model": str(Path(__file__).parents[1] / "models" / "asr"), "device": "cpu", "max_chunk_s": 8},
    "models": {"allow_unpinned": True},
}
"""Settings for a config: a model's folder, which is looked for, and not loaded."""
STAGE_VARIABLE = "QUICK_GRAPH_STAGE"
"""Names the file that says what each stage takes for a job of 20 s of audio, in seconds; replicas inherit it."""
SENTENCE_S = 3.0
TURN_S = 6.0


class Detector:
    def detect(self, _audio: Any, piece: Span) -> list[Span]:
        """Sentences with a pause between them."""
        step()
        starts = np.arange(piece.start_s, piece.end_s - 1, SENTENCE_S + 1).tolist()
        return [Span(start_s=start_s, end_s=min(start_s + SENTENCE_S, piece.end_s)) for start_s in starts]


class Recognizer:
    def transcribe(self, chunks: Sequence[Any]) -> list[Transcript]:
        """A word per second."""
        return [_transcript(chunk.start_s, len(chunk.audio) / SAMPLE_RATE_HZ) for chunk in chunks if not step(3)]

    def detect(self, chunks: Sequence[Any], *, brief: bool = False) -> list[dict[str, float]]:  # noqa: ARG002
        """No language is told."""
        return [{} for _ in chunks]


def _transcript(start_s: float, duration_s: float) -> Transcript:
    edges = np.linspace(start_s, start_s + duration_s, max(1, round(duration_s)) + 1).tolist()
    words = tuple(
        Word(start_s=begin, end_s=end, text=f"word{round(begin)}", probability=0.9) for begin, end in pairwise(edges)
    )
    text = " ".join(word.text for word in words)
    heard = Utterance(start_s=start_s, end_s=edges[-1], text=text, confidence=0.9, words=words)
    return Transcript(language="en", utterances=(heard,))


class Diarizer:
    def segment(self, audio: Any, _piece: Span) -> float:
        """The length of the whole."""
        step(3)
        return len(audio) / SAMPLE_RATE_HZ

    def embed(self, _audio: Any, segmentation: float) -> float:
        """The same."""
        step(3)
        return segmentation

    def cluster(self, segmentations: Sequence[float], _embeddings: object, **_counts: object) -> list[Turn]:
        """Two voices in turn."""
        step(3)
        starts = np.arange(0, segmentations[0], TURN_S).tolist()
        return [Turn(start_s=at, end_s=at + TURN_S, speaker=number % 2) for number, at in enumerate(starts)]

    def check(self) -> None:
        """It is well."""


class Prosody:
    def tracks(self, _audio: Any, piece: Span) -> Tracks:
        """A tone."""
        step(2)
        frames = round(piece.duration_s * FRAMES_PER_S)
        level_dbfs = np.full(frames, -20, np.float32)
        return Tracks(start_s=piece.start_s, f0_hz=np.full(frames, 200, np.float32), level_dbfs=level_dbfs)


class Emotion:
    def cut(self, _audio: Any, _tracks: Any, segments: Sequence[Any]) -> list[list[Any]]:
        """Each segment as a whole."""
        return [[None] for _ in segments]

    def weight_s(self, _item: Any) -> float:
        """Each the same."""
        return 1.0

    def judge(self, items: Sequence[Any]) -> list[Any]:
        """Nothing."""
        step()
        return [None for _ in items]

    def mood(self, _answers: Sequence[Any]) -> None:
        """None to be had."""

    def check(self) -> None:
        """It is well."""


def measure(_tracks: Tracks, segments: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The floor value for each word."""
    step(2)
    return [(UNKNOWN,) * len(each.words) for each in segments]


ENGINES: dict[str, dict[str, Callable[..., Any]]] = {
    "AudioExtractor": {},
    "SpeechDetector": {"deployments.speech_detector.registry:create": lambda _: Detector()},
    "Transcriber": {"deployments.transcriber.deployment:create": lambda *_: Recognizer()},
    "Diarizer": {"deployments.diarizer.registry:create": lambda _: Diarizer()},
    "ProsodyAnalyzer": {
        "deployments.prosody.registry:create": lambda _: Prosody(),
        "deployments.prosody.words:measure": measure,
    },
    "EmotionAnalyzer": {"deployments.emotion.deployment:create": lambda _: Emotion()},
}
"""Per deployment, what is replaced in its replicas, and by what."""


def build(args: Settings) -> Application:
    """The graph. The config has `EARS`, and the embedded engines for the rest."""
    for name in ENGINES:
        setattr(app, name, _quick(getattr(app, name)))
    return app.build(args)


def _quick(deployment: Deployment) -> Deployment:
    name, original = deployment.name, deployment.func_or_class

    class Quick(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            _replace(name)
            super().__init__(*args, **options)

    return deployment.options(func_or_class=Quick)


def _replace(deployment: str) -> None:
    """In this process: the engine, and what imports torch. A module that is not imported yet never will be."""
    for place, answer in ENGINES[deployment].items():
        module, _, name = place.partition(":")
        setattr(sys.modules.setdefault(module, ModuleType(module)), name, answer)
    replica.prepare = lambda **_: logs.configure()  # idle priority, too: what computes nothing disturbs nobody


def step(calls: int = 1) -> None:
    """What takes the time of one of a job's `calls` at a stage: all stages are as busy as the others."""
    time.sleep(float(Path(os.environ[STAGE_VARIABLE]).read_text()) / calls)
