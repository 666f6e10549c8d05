"""The server's graph with stages that have no models: Serve's `import_path` in the checker's config.

Ingress, manager, drivers and the extractor are the real ones.
"""

from ray.serve import Application

from serve_app import app
from serve_app.settings import Settings
from tests.chaos.stage import stage

STAGES = {
    "SpeechDetector": ("detect",),
    "Transcriber": ("transcribe", "detect_language"),
    "Aligner": ("align",),
    "Diarizer": ("segment", "embed", "cluster"),
    "ProsodyAnalyzer": ("tracks", "measure"),
    "EmotionAnalyzer": ("analyze",),
}
"""Deployments and their methods."""


def build(args: Settings) -> Application:
    """The graph."""
    for name, methods in STAGES.items():
        setattr(app, name, getattr(app, name).options(func_or_class=stage(methods)))
    return app.build(args)
