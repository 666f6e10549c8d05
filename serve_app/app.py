"""The whole graph on one screen.

Serve turns the config file's `args` into `Settings` only where the annotation is a class, so this module does
without `from __future__ import annotations`.
"""

from typing import Any

from ray.serve import Application

from deployments.aligner.deployment import Aligner
from deployments.diarizer.deployment import Diarizer
from deployments.emotion.deployment import EmotionAnalyzer
from deployments.extraction.deployment import AudioExtractor
from deployments.prosody.deployment import ProsodyAnalyzer
from deployments.speech_detector.deployment import SpeechDetector
from deployments.transcriber.config import has_word_times
from deployments.transcriber.deployment import Transcriber
from serve_app.ingress import Ingress
from serve_app.settings import Settings

SHARE = {"num_cpus": 0.25}
"""What a replica claims of the cores where no config says otherwise: the whole graph then fits on two."""


def build(args: Settings) -> Application:
    """The application: `serve run serve_app.app:build`, or `import_path` in a Serve config.

    A job's way through it is in `serve_app/jobs/pipeline.py`; how many replicas each part has, in `configs/`.
    """
    needs_aligner = not has_word_times(args.transcriber)
    return _bind(
        Ingress,
        args,
        extractor=_bind(AudioExtractor, args.extraction),
        detector=_bind(SpeechDetector, args.speech_detector),
        transcriber=_bind(Transcriber, args.transcriber, args.model_store),
        aligner=_bind(Aligner, args.aligner, args.model_store) if needs_aligner else None,
        diarizer=_bind(Diarizer, args.diarizer, args.model_store),
        prosody=_bind(ProsodyAnalyzer, args.prosody),
        emotion=_bind(EmotionAnalyzer, args.emotion, args.model_store),
    )


def _bind(deployment: Any, *args: Any, **handles: Any) -> Application:
    bound: Application = deployment.options(ray_actor_options=SHARE).bind(*args, **handles)
    return bound
