"""serve_config.yaml on a machine of tests: the production engines on the small models, on the CPU, over loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.process import ROOT
from tests.support.small_diarizer import build_pipeline

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ROOT / "serve_config.yaml"
MODELS = ROOT / "tests" / "models"
LOOPBACK = '["127.0.0.0/8", "::1/128"]'
NODE = ("--host", "127.0.0.1", "--num-gpus", "1", "--num-cpus", "12")
"""What Ray is told that there is: room for all replicas. The GPU is a number only, nothing computes on it."""
ARGUMENTS = ("--config", str(CONFIG), *NODE)


def production_environment(diarizer: Path) -> dict[str, str]:
    """The settings that make it so; the diarization pipeline is built at `diarizer`, which must not exist."""
    aligner = str(MODELS / "aligner")
    return {
        "ML_SERVER_TRANSCRIBER__MODEL": str(MODELS / "asr"),
        "ML_SERVER_ALIGNER__MODELS": json.dumps({"en": aligner, "ko": aligner}),
        "ML_SERVER_DIARIZER__MODEL": str(build_pipeline(diarizer)),
        "ML_SERVER_EMOTION__MODEL": str(MODELS / "emotion"),
        **{f"ML_SERVER_{stage}__DEVICE": "cpu" for stage in ("TRANSCRIBER", "ALIGNER", "DIARIZER", "EMOTION")},
        "ML_SERVER_MODELS__ALLOW_UNPINNED": "true",
        "ML_SERVER_PROFILE": "local",
        "ML_SERVER_EXTRACTOR__NET__SCHEMES": '["http", "https"]',
        "ML_SERVER_EXTRACTOR__NET__PORTS": "*",
        "ML_SERVER_EXTRACTOR__NET__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__NETWORKS": LOOPBACK,
        "ML_SERVER_CALLBACKS__ORIGINS": '["http://127.0.0.1:*"]',
    }
