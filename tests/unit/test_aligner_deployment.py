from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments.aligner import deployment
from deployments.aligner.config import AlignerConfig
from deployments.aligner.proportional import timed
from deployments.errors import ModelMissingError
from deployments.models.config import ModelsConfig
from deployments.models.lock import Lock, LockedFile, LockedModel, write
from deployments.types import Transcript, Utterance
from tests.support.model_hub import REPOSITORY, REVISION, place, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deployments.aligner.engine import AlignItem

HEARD = Transcript(language="en", utterances=(Utterance(start_s=1.0, end_s=3.0, text="two words"),))
TIMED = tuple(timed(utterance, "en") for utterance in HEARD.utterances)
AUDIO = np.zeros(0, np.int16)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployment's class without Ray, and without lowering the priority of the tests."""
    monkeypatch.setattr(deployment.replica, "prepare", lambda **_: None)
    return partial(deployment.Aligner.func_or_class, AlignerConfig(), ModelsConfig())


def align(replica: Any) -> Transcript:
    async def work() -> Transcript:
        answer: Transcript = await replica().align(AUDIO, HEARD, "a-job")
        return answer

    return asyncio.run(work())


def test_a_transcript_comes_back_with_times(replica: Any) -> None:
    """The engine's answer, as it is."""
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


def test_a_failed_alignment_does_not_cost_the_transcript(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolated times, and a warning that says so without the library's words."""

    class Broken:
        def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
            return [OSError("/secret/path") for _ in items]

    monkeypatch.setattr(deployment, "create", lambda *_, **__: Broken())
    assert align(replica) == Transcript(language="en", utterances=TIMED, warnings=(deployment.FAILED,))
