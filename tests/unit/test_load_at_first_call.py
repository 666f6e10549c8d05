"""Stages that load their engine with the first job: what a replica holds before, and what its calls say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from deployments import replica
from deployments.diarizer.config import DiarizerConfig
from deployments.diarizer.deployment import Diarizer
from deployments.errors import ModelLoadError
from deployments.models.config import ModelsConfig
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.speech_detector.deployment import SpeechDetector
from deployments.types import Span

PIECE = Span(start_s=0.0, end_s=1.0)
SILENCE = np.zeros(16000, np.int16)
PROGRAM = """
import asyncio, sys
import numpy as np
from deployments.diarizer import deployment as diarizer
from deployments.diarizer.config import DiarizerConfig
from deployments.models.config import ModelsConfig
from deployments.speech_detector import deployment as detector
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.types import Span

async def main():
    late = {"load_at_first_call": sys.argv[2] == "late"}
    if sys.argv[1] == "diarizer":
        stage = diarizer.Diarizer.func_or_class(DiarizerConfig(**late), ModelsConfig())
        await stage.check_health()
        call = stage.segment
    else:
        stage = detector.SpeechDetector.func_or_class(SpeechDetectorConfig(**late))
        call = stage.detect
    before = "torch" in sys.modules
    await call(np.zeros(16000, np.int16), Span(start_s=0.0, end_s=1.0))
    print(before, "torch" in sys.modules)

asyncio.run(main())
"""


@pytest.mark.parametrize("stage", ["diarizer", "detector"])
@pytest.mark.parametrize("when", ["late", "at the start"])
def test_torch_comes_with_the_first_call_where_that_is_asked_for(stage: str, when: str) -> None:
    """A quarter of a gigabyte in each such process, at rest; by default a replica is ready when it is healthy."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, stage, when]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert told == [str(when != "late"), "True"]


async def test_a_device_that_is_missing_is_told_by_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start nothing is known of it, and a failed load is tried again: it is not taken for an engine."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    make_detector: Any = SpeechDetector.func_or_class
    make_diarizer: Any = Diarizer.func_or_class
    detector = make_detector(SpeechDetectorConfig(device="cuda:99", load_at_first_call=True))
    diarizer = make_diarizer(DiarizerConfig(device="cuda:99", load_at_first_call=True), ModelsConfig())
    for call in (detector.detect, diarizer.segment) * 2:
        with pytest.raises(ModelLoadError, match="is cuda:99, but torch cannot compute there"):
            await call(SILENCE, PIECE)
    with pytest.raises(ModelLoadError):
        make_detector(SpeechDetectorConfig(device="cuda:99"))
