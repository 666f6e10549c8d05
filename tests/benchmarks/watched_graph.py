"""The server's graph with a clock around every engine, for `bench_overhead`: Serve's `import_path` in its config.

`build` is the graph as it is, and each call of an engine writes a line with its beginning and end. `build_instant` is
the same graph, replicas, batchers and calls with the engines of `serve_app.testing`, which answer at once: what is left
of a job is the server's own.
"""

import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from ray.serve import Application, Deployment

from deployments import logs
from serve_app import app, testing
from serve_app.settings import Settings

COMPUTED = "computed"
"""The message of the lines."""
ENGINES: dict[str, tuple[str, type, tuple[str, ...]]] = {
    "SpeechDetector": (
        "deployments.speech_detector.pyannote_segmentation:PyannoteSpeechEngine",
        testing.FakeDetector,
        ("detect",),
    ),
    "Transcriber": (
        "deployments.transcriber.whisper:WhisperRecognizer",
        testing.FakeRecognizer,
        ("transcribe", "detect"),
    ),
    "Aligner": ("deployments.aligner.ctc:CtcAligner", testing.FakeAligner, ("align",)),
    "Diarizer": (
        "deployments.diarizer.pretrained:PretrainedEngine",
        testing.FakeDiarizer,
        ("segment", "embed", "cluster"),
    ),
    "ProsodyAnalyzer": ("deployments.prosody.tracks:LibrosaEngine", testing.FakeProsody, ("tracks",)),
    "EmotionAnalyzer": ("deployments.emotion.classifier:ClassifierEngine", testing.FakeEmotion, ("judge",)),
}
"""Per deployment the class of its engine, the fake in its place, and the methods that compute."""
MEASURE = "deployments.prosody.words"
"""`measure` there computes, too, in the ProsodyAnalyzer."""

log = logs.get_logger("watched")


def build(args: Settings) -> Application:
    """The graph, watched."""
    return _build(args, instant=False)


def build_instant(args: Settings) -> Application:
    """The graph whose engines take no time, watched."""
    return _build(args, instant=True)


def _build(args: Settings, *, instant: bool) -> Application:
    for name in ENGINES:
        setattr(app, name, _watched(getattr(app, name), instant=instant))
    return app.build(args)


def _watched(deployment: Deployment, *, instant: bool) -> Deployment:
    """`deployment`, its engine watched in each replica before it is made."""
    name, original = deployment.name, deployment.func_or_class

    class Watched(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            if instant:
                testing.replace_engines(name)
            watch_engine(name, instant=instant)
            super().__init__(*args, **options)

    return deployment.options(func_or_class=Watched)


def watch_engine(deployment: str, *, instant: bool) -> None:
    """In this process, put a clock around what computes in `deployment`, or in its fake."""
    place, fake, methods = ENGINES[deployment]
    owner = fake if instant else engine_class(place)
    for name in methods:
        setattr(owner, name, _timed(deployment, getattr(owner, name)))
    if deployment == "ProsodyAnalyzer":
        words = import_module(MEASURE)
        words.measure = _timed(deployment, words.measure)  # type: ignore[attr-defined]


def engine_class(place: str) -> type:
    """The class that `place` names as `module:name`."""
    module, _, name = place.partition(":")
    found: type = getattr(import_module(module), name)
    return found


def _timed(deployment: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*args: Any, **options: Any) -> Any:
        began = time.time()
        try:
            return function(*args, **options)
        finally:
            told = {"computed_in": deployment, "began": began, "ended": time.time()}
            log.info(COMPUTED, extra=told)

    return timed
