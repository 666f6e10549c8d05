"""Stages that load their engine with the first job: what a replica holds before, and what its calls say."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments import replica
from deployments.diarizer.config import DiarizerConfig
from deployments.diarizer.deployment import Diarizer
from deployments.errors import DeviceError, ModelLoadError, ModelMissingError
from deployments.models.config import ModelsConfig
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.speech_detector.deployment import SpeechDetector
from deployments.types import Span

if TYPE_CHECKING:
    from pathlib import Path

PIECE = Span(start_s=0.0, end_s=1.0)
SILENCE = np.zeros(16000, np.int16)
PROGRAM = """
import asyncio, os, sys
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
    print(before, "torch" in sys.modules, flush=True)
    os._exit(0)  # pyannote's import, which has begun, would be waited for

asyncio.run(main())
"""


@pytest.mark.parametrize(("stage", "when"), [("diarizer", "late"), ("detector", "late"), ("detector", "at the start")])
def test_torch_comes_with_the_first_call_where_that_is_asked_for(stage: str, when: str) -> None:
    """A quarter of a gigabyte in each such process, at rest; by default a replica is ready when it is healthy."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, stage, when]
    environment = os.environ | {"ML_SERVER_COMPUTE_PRIORITY": "fair"}  # not only while nothing else runs
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    assert told == [str(when != "late"), "True"]


def fail(tries: list[int]) -> Any:
    tries.append(1)
    raise ImportError("libtorch.so")


async def test_a_failed_load_ends_the_replica_and_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call raises what callers repeat elsewhere, the health check fails, and nothing is loaded over a failure."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    late = {"load_at_first_call": True}
    make_detector: Any = SpeechDetector.func_or_class
    make_diarizer: Any = Diarizer.func_or_class
    detector = make_detector(SpeechDetectorConfig(**late))
    diarizer = make_diarizer(DiarizerConfig(**late), ModelsConfig())
    for stage, call in ((detector, detector.detect), (diarizer, diarizer.segment)):
        tries: list[int] = []
        monkeypatch.setattr(stage._engine, "_load", partial(fail, tries))
        await stage.check_health()
        for _ in range(2):
            with pytest.raises(DeviceError):
                await call(SILENCE, PIECE)
            with pytest.raises(DeviceError):
                await stage.check_health()
        assert len(tries) == 1


async def test_a_late_model_is_missed_and_checked_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is not there is told at the start; one that was altered since is not unpickled."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    checked: list[str] = []

    def located(config: DiarizerConfig, *_: object) -> DiarizerConfig:
        checked.append(config.model)
        if len(checked) > 1:
            raise ModelMissingError(config.model)
        return config

    monkeypatch.setattr("deployments.diarizer.deployment.located", located)
    make: Any = Diarizer.func_or_class
    diarizer = make(DiarizerConfig(engine="pyannote", model=str(tmp_path), load_at_first_call=True), ModelsConfig())
    assert len(checked) == 1
    with pytest.raises(DeviceError):
        await diarizer.segment(SILENCE, PIECE)
    assert len(checked) == 2


async def test_without_it_a_device_that_is_missing_keeps_the_replica_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in production: the deployment fails, and says why."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    make: Any = SpeechDetector.func_or_class
    with pytest.raises(ModelLoadError, match="is cuda:99, but torch cannot compute there"):
        make(SpeechDetectorConfig(device="cuda:99"))
