from __future__ import annotations

import hashlib
import json

import pytest

from tests.support.process import ROOT, running_server
from tests.support.production import ARGUMENTS, production_environment

KEY = "a-key-for-this-test"
SPEECH = ROOT / "tests" / "data" / "speech"


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """serve_config.yaml for real: production engines on small models, a fake GPU, keys, contract 1.0, English."""
    environment = {
        **production_environment(tmp_path_factory.mktemp("models") / "diarizer"),
        "ML_SERVER_TRANSCRIBER__MAX_CHUNK_S": "10",
        "ML_SERVER_TRANSCRIBER__THREADS": "1",
        "ML_SERVER_CONTRACT_VERSION": "1.0",
        "ML_SERVER_LOCALE": "en",
        "ML_SERVER_HEARTBEAT_S": "2",
        "ML_SERVER_LIMITS__RUNNING_JOBS": "2",
        "ML_SERVER_LIMITS__QUEUED_JOBS": "2",
        "ML_SERVER_LIMITS__PREFETCHES": "0",
        "ML_SERVER_AUTH__MODE": "keys",
        "ML_SERVER_AUTH__KEY_HASHES": f'["{hashlib.sha256(KEY.encode()).hexdigest()}"]',
    }
    with running_server(*ARGUMENTS, environment=environment, api_key=KEY) as server:
        yield server


@pytest.fixture(scope="session")
def spoken():
    """What is said in the clips of tests/data/speech."""
    return json.loads((SPEECH / "texts.json").read_text(encoding="utf-8"))
