from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments import logs
from deployments.aligner import deployment
from deployments.aligner.config import AlignerConfig
from deployments.aligner.proportional import interpolated, timed
from deployments.errors import DeviceError, ModelMissingError
from deployments.models.config import ModelsConfig
from deployments.models.lock import Lock, LockedFile, LockedModel, write
from deployments.types import Transcript, Utterance
from deployments.warnings import ResultWarning, WarningCode
from tests.support.model_hub import REPOSITORY, REVISION, place, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deployments.aligner.protocol import AlignItem

HEARD = Transcript(language="en", utterances=(Utterance(start_s=1.0, end_s=3.0, text="two words"),))
TIMED = tuple(timed(utterance, "en") for utterance in HEARD.utterances)
AUDIO = np.zeros(0, np.int16)
FAILED = ResultWarning(code=WarningCode.ALIGNMENT_FAILED, seconds=2.0)
UNHEARD = ResultWarning(code=WarningCode.UNHEARD_DROPPED, count=1)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployment's class without Ray, and without lowering the priority of the tests."""
    monkeypatch.setattr(deployment.replica, "prepare", lambda **_: None)
    return partial(deployment.Aligner.func_or_class, AlignerConfig(), ModelsConfig())


class Engine:
    """Times words as the proportional one does; fails as told, for batches larger than `fits` only."""

    def __init__(self, error: Exception, *, fits: int = 0) -> None:
        self.error, self.fits = error, fits
        self.sizes: list[int] = []
        self.dead = False

    def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
        self.sizes.append(len(items))
        if len(items) > self.fits:
            raise self.error
        return [interpolated(item.transcript) for item in items]

    def check(self) -> None:
        if self.dead:
            raise DeviceError


def align(replica: Any) -> Transcript:
    async def work() -> Transcript:
        answer: Transcript = await replica().align(AUDIO, HEARD, "a-job")
        return answer

    return asyncio.run(work())


def test_a_transcript_comes_back_with_times(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's answer, as it is."""
    monkeypatch.setattr(deployment, "create", lambda *_, **__: Engine(OSError(), fits=1))
    assert align(replica) == Transcript(language="en", utterances=TIMED)


@pytest.mark.parametrize("altered", [False, True])
def test_a_preloaded_model_that_cannot_be_had_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, altered: bool
) -> None:
    """Missing or corrupt: the replica does not start, and the error names the model and the command that heals it."""
    monkeypatch.setattr(deployment.replica, "prepare", lambda **_: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    locked = {name: LockedFile(sha256=sha256(content), size=len(content)) for name, content in files.items()}
    entry = LockedModel(kind="aligner", name=REPOSITORY, revision=REVISION, files=locked)
    write(tmp_path / "lock.yaml", Lock(models=(entry,)))
    store = ModelsConfig(lock=tmp_path / "lock.yaml", cache_dir=tmp_path / "hub", memory_dir=tmp_path)
    if altered:
        place(tmp_path / "hub", REPOSITORY, REVISION, files | {"model.safetensors": b"Weights"})
    config = AlignerConfig(engine="ctc", models={"en": REPOSITORY}, preload=("en",))
    with pytest.raises(ModelMissingError) as refused:
        deployment.Aligner.func_or_class(config, store)
    wrong = "damaged (model.safetensors is altered, with another SHA-256)" if altered else "missing"
    assert str(refused.value) == (
        f"the aligner model {REPOSITORY} is {wrong}: fetch it with `ml-server models fetch --config CONFIG`"
    )


def test_a_failed_alignment_does_not_cost_the_transcript(
    replica: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Interpolated times, a warning without the library's words, and one line in the log, without a traceback."""
    monkeypatch.setattr(deployment, "create", lambda *_, **__: Engine(OSError("/secret/path")))
    with caplog.at_level(logging.INFO, logger=logs.ROOT):
        assert align(replica) == Transcript(language="en", utterances=TIMED, warnings=(FAILED,))
    [line] = [json.loads(logs.JsonFormatter().format(record)) for record in caplog.records]
    assert (line["message"], line["error"]) == ("chunk not aligned", "OSError: /secret/path")
    assert line[logs.JOB_FIELD] == "a-job"
    assert "traceback" not in line


async def test_too_little_memory_halves_the_batch(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two chunks at a time: eight of two jobs come back timed, without a warning, from a healthy replica."""
    engine = Engine(RuntimeError("CUDA out of memory"), fits=2)
    monkeypatch.setattr(deployment, "create", lambda *_, **__: engine)
    aligner = replica()
    answers = await asyncio.gather(*(aligner.align(AUDIO, HEARD, str(i % 2)) for i in range(8)))
    assert answers == [Transcript(language="en", utterances=TIMED)] * 8
    await aligner.check_health()
    assert engine.sizes == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize("text", ["CUDA out of memory", "CUDA error: device-side assert triggered"])
async def test_a_lost_device_is_not_swallowed(replica: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """No memory for a single chunk, or a dead context: the driver hears of it, and the health check fails."""
    error = RuntimeError(text)
    monkeypatch.setattr(deployment, "create", lambda *_, **__: Engine(error))
    aligner = replica()
    await aligner.check_health()
    with pytest.raises(DeviceError) as failure:
        await aligner.align(AUDIO, HEARD, "a-job")
    assert failure.value.__cause__ is error
    with pytest.raises(DeviceError):
        await aligner.check_health()


async def test_a_device_that_dies_idle_fails_the_check(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health check asks the device itself."""
    engine = Engine(ValueError("x"), fits=9)
    monkeypatch.setattr(deployment, "create", lambda *_, **__: engine)
    aligner = replica()
    await aligner.check_health()
    engine.dead = True
    with pytest.raises(DeviceError):
        await aligner.check_health()
