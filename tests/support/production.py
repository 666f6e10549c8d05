"""serve_config.yaml on a machine of tests: the production engines on the small models, on the CPU, over loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deployments.aligner.config import AlignerConfig
from deployments.emotion.config import EmotionConfig
from tests.support.process import ROOT
from tests.support.small_diarizer import build_pipeline

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ROOT / "serve_config.yaml"
MODELS = ROOT / "tests" / "models"
LOOPBACK = '["127.0.0.0/8", "::1/128"]'
NODE = ("--host", "127.0.0.1", "--num-gpus", "1", "--num-cpus", "16")
"""What Ray is told that there is: room for all replicas. The GPU is a number only, nothing computes on it."""
ARGUMENTS = ("--config", str(CONFIG), *NODE)
SMALL: dict[str, dict[str, Any]] = {
    "transcriber": {"model": str(MODELS / "asr"), "device": "cpu", "threads": 1, "max_chunk_s": 4},
    "aligner": {"engine": "ctc", "models": {"en": str(MODELS / "aligner")}},
    "models": {"allow_unpinned": True},
}
"""Arguments of a server with the small models, and with every stage in its graph."""


def production_environment(diarizer: Path) -> dict[str, str]:
    """The settings that make it so; the diarization pipeline is built at `diarizer`, which must not exist."""
    aligners = json.dumps(dict.fromkeys(("en", "ko"), str(MODELS / "aligner")))
    pipeline = str(build_pipeline(diarizer))
    models = {
        "TRANSCRIBER__MODEL": str(MODELS / "asr"),
        "ALIGNER__MODELS": aligners,
        "DIARIZER__MODEL": pipeline,
        "EMOTION__MODEL": str(MODELS / "emotion"),
    }
    return {
        **{f"ML_SERVER_{prefix}{name}": model for prefix in ("", "CPU_POOL__") for name, model in models.items()},
        **{f"ML_SERVER_{stage}__DEVICE": "cpu" for stage in ("TRANSCRIBER", "ALIGNER", "DIARIZER", "EMOTION")},
        "ML_SERVER_ALIGNER__BATCH_S": str(AlignerConfig().batch_s),  # what fits a CPU: the file's are a GPU's
        "ML_SERVER_EMOTION__BATCH_S": str(EmotionConfig().batch_s),
        "ML_SERVER_MODELS__ALLOW_UNPINNED": "true",
        "ML_SERVER_PROFILE": "local",
        "ML_SERVER_EXTRACTOR__NET__SCHEMES": '["http", "https"]',
        "ML_SERVER_EXTRACTOR__NET__PORTS": "*",
        "ML_SERVER_EXTRACTOR__NET__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__ORIGINS": '["http://127.0.0.1:*"]',
    }
