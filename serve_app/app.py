"""The whole graph on one screen.

Serve turns the config file's `args` into `Settings` only where the annotation is a class, so this module does
without `from __future__ import annotations`.
"""

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

APP_NAME = "ml-server"


def build(args: Settings) -> Application:
    """The application: `serve run serve_app.app:build`, or `import_path` in a Serve config.

    A job's way through it is in `serve_app/jobs/pipeline.py`; how many replicas each part has, in `configs/`.
    """
    needs_aligner = not has_word_times(args.transcriber)
    return Ingress.bind(
        args,
        extractor=AudioExtractor.bind(args.extraction),
        detector=SpeechDetector.bind(args.speech_detector),
        transcriber=Transcriber.bind(args.transcriber),
        aligner=Aligner.bind(args.aligner) if needs_aligner else None,
        diarizer=Diarizer.bind(args.diarizer),
        prosody=ProsodyAnalyzer.bind(args.prosody),
        emotion=EmotionAnalyzer.bind(args.emotion),
    )
