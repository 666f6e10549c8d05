"""The server's graph with a clock around every engine, for `bench_overhead`: Serve's `import_path` in its config.

`build` is the graph as it is, and each call of an engine writes a line with its beginning and end. `build_instant` is
the same graph, replicas, batchers and calls with engines that answer at once (`canned`): what is left of a job is the
server's own. Both replace methods of the engines' classes inside the replicas, before these are made, and nothing else.
"""

import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from ray.serve import Application, Deployment

from deployments import logs
from serve_app import app
from serve_app.settings import Settings
from tests.benchmarks import canned

COMPUTED = "computed"
"""The message of the lines."""
ENGINES: dict[str, dict[str, Callable[..., Any]]] = {
    "SpeechDetector": {"deployments.speech_detector.pyannote_segmentation:PyannoteSpeechEngine.detect": canned.detect},
    "Transcriber": {
        "deployments.transcriber.whisper:WhisperRecognizer.transcribe": canned.transcribe,
        "deployments.transcriber.whisper:WhisperRecognizer.detect": canned.languages,
    },
    "Aligner": {"deployments.aligner.ctc:CtcAligner.align": canned.align},
    "Diarizer": {
        "deployments.diarizer.pretrained:PretrainedEngine.segment": canned.segment,
        "deployments.diarizer.pretrained:PretrainedEngine.embed": canned.embed,
        "deployments.diarizer.pretrained:PretrainedEngine.cluster": canned.cluster,
    },
    "ProsodyAnalyzer": {
        "deployments.prosody.librosa_engine:LibrosaEngine.tracks": canned.tracks,
        "deployments.prosody.words:measure": canned.measure,
    },
    "EmotionAnalyzer": {"deployments.emotion.classifier:ClassifierEngine.judge": canned.judge},
}
"""Per deployment, what computes in it (`module:name`), and what answers in its place at once."""

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
    """`deployment`, its engine replaced in each replica before it is made."""
    name, original = deployment.name, deployment.func_or_class

    class Watched(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            replace_engine(name, instant=instant)
            super().__init__(*args, **options)

    return deployment.options(func_or_class=Watched)


def replace_engine(deployment: str, *, instant: bool) -> None:
    """In this process, put a clock around what computes in `deployment`; `instant`: around a canned answer instead."""
    for target, answer in ENGINES[deployment].items():
        owner, name = _place(target)
        setattr(owner, name, _timed(deployment, answer if instant else getattr(owner, name)))


def _place(target: str) -> tuple[Any, str]:
    """Where `module:name` or `module:class.name` is kept, and under which name."""
    module, _, path = target.partition(":")
    *classes, name = path.split(".")
    owner: Any = import_module(module)
    for each in classes:
        owner = getattr(owner, each)
    return owner, name


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
