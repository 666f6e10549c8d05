"""Builds the graph of deployments.

Serve turns the config file's `args` into `Settings` only where the annotation is a class, so this module does
without `from __future__ import annotations`.
"""

from typing import Any

from ray.serve import Application
from ray.serve.exceptions import RayServeException

from deployments import logs
from deployments.aligner.config import timed_by_ctc
from deployments.aligner.deployment import Aligner
from deployments.diarizer.deployment import Diarizer
from deployments.emotion.deployment import EmotionAnalyzer
from deployments.errors import ModelLoadError
from deployments.extraction.deployment import AudioExtractor
from deployments.models.config import ModelsConfig
from deployments.models.store import resolve
from deployments.prosody.deployment import ProsodyAnalyzer
from deployments.speech_detector.deployment import SpeechDetector
from deployments.transcriber.deployment import Transcriber
from serve_app.ingress import Ingress, check_exposure
from serve_app.orchestration.placement import check_reach
from serve_app.settings import CpuPool, Settings

SHARE = {"num_cpus": 0.25}
"""Cores that a replica claims unless the config says otherwise: the whole graph then fits on two."""


def build(args: Settings) -> Application:
    """Return the application, for `serve run serve_app.app:build` or as `import_path` in a Serve config.

    `serve_app/pipeline/pipeline.py` calls its stages; `configs/` sets their replicas.
    """
    logs.configure()
    check_reach(args.database_url.get_secret_value())
    check_exposure(args)
    try:
        check_models(args)
    except ModelLoadError as missing:
        raise RayServeException(str(missing)) from missing  # `serve status` shows its text without a traceback
    pool = args.cpu_pool
    return _bind(
        Ingress,
        args,
        extractor=_bind(AudioExtractor, args.extractor),
        detector=_bind(SpeechDetector, args.speech_detector),
        prosody=_bind(ProsodyAnalyzer, args.prosody),
        **_with_models(args, args.models),
        cpu=_with_models(pool, args.models, suffix="Cpu") if pool else None,
    )


def check_models(settings: Settings) -> None:
    """Check the models before Serve starts replicas, each of which would otherwise fail three times.

    In production only those of the CPU pool: its replicas start with the first job that needs them, and the machine
    that builds the app need not have the others. Raises ModelLoadError if one is missing, with what fetches it.
    """
    for model in settings.wanted_models if settings.profile == "local" else settings.pool_models:
        resolve(model.name, model.kind, settings.models)


def _with_models(stages: Settings | CpuPool, store: ModelsConfig, suffix: str = "") -> dict[str, Any]:
    """Return the stages that load models: those of the graph, or those of the CPU pool."""
    needs_aligner = bool(timed_by_ctc(stages.aligner))
    return {
        "transcriber": _bind(Transcriber, stages.transcriber, store, stages.aligner, suffix=suffix),
        "aligner": _bind(Aligner, stages.aligner, store, suffix=suffix) if needs_aligner else None,
        "diarizer": _bind(Diarizer, stages.diarizer, store, suffix=suffix),
        "emotion": _bind(EmotionAnalyzer, stages.emotion, store, suffix=suffix),
    }


def _bind(deployment: Any, *args: Any, suffix: str = "", **handles: Any) -> Application:
    named = deployment.options(name=deployment.name + suffix, ray_actor_options=SHARE)
    bound: Application = named.bind(*args, **handles)
    return bound
