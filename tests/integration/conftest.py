from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deployments.types import SAMPLE_RATE_HZ
from tests.support.backend import Backend
from tests.support.process import ROOT
from tests.support.sources import Sources

CLEAR = ROOT / "examples" / "media" / "clear.flac"


@pytest.fixture
def backend():
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def sources():
    with Sources() as sources:
        yield sources


@pytest.fixture(scope="session")
def conversation() -> Path:
    """The real 30 s telephone conversation that pyannote.audio ships, with its reference beside it."""
    spec = importlib.util.find_spec("pyannote.audio")
    return Path(spec.origin).parent / "sample" / "sample.wav"


@pytest.fixture(scope="session")
def clear() -> Path:
    """The clearly spoken clip of the demo."""
    return CLEAR


@pytest.fixture(scope="session")
def short(tmp_path_factory) -> Path:
    """The first four seconds of the clear clip."""
    samples, rate = soundfile.read(CLEAR, dtype="int16")
    assert rate == SAMPLE_RATE_HZ
    path = tmp_path_factory.mktemp("clips") / "short.wav"
    soundfile.write(path, np.asarray(samples[: 4 * rate]), rate)
    return path
