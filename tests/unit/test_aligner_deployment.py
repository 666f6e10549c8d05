from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments.aligner import deployment
from deployments.aligner.config import AlignerConfig
from deployments.aligner.proportional import timed
from deployments.aligner.witness import UNHEARD
from deployments.models.config import ModelsConfig
from deployments.types import Transcript, Utterance, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.aligner.engine import AlignItem

HEARD = Transcript(language="en", utterances=(Utterance(start_s=1.0, end_s=3.0, text="two words"),))
TIMED = tuple(timed(utterance, "en") for utterance in HEARD.utterances)
AUDIO = np.zeros(0, np.int16)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployment's class without Ray, and without lowering the priority of the tests."""
    monkeypatch.setattr(deployment.replica, "prepare", lambda **_: None)
    monkeypatch.setattr(deployment, "Counter", lambda *_, **__: None)
    return partial(deployment.Aligner.func_or_class, AlignerConfig(), ModelsConfig())


def align(replica: Any) -> Transcript:
    async def work() -> Transcript:
        answer: Transcript = await replica().align(AUDIO, HEARD, "a-job")
        return answer

    return asyncio.run(work())


def test_a_transcript_comes_back_with_times(replica: Any) -> None:
    """The engine's answer, as it is."""
    assert align(replica) == Transcript(language="en", utterances=TIMED)


def test_a_failed_alignment_does_not_cost_the_transcript(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolated times, and a warning that says so without the library's words."""

    class Broken:
        def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
            return [OSError("/secret/path") for _ in items]

    monkeypatch.setattr(deployment, "create", lambda *_, **__: Broken())
    assert align(replica) == Transcript(language="en", utterances=TIMED, warnings=(deployment.FAILED,))


def test_invented_text_is_left_out(replica: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine hears no word of does not come back, is told, and is counted once."""

    class Deaf:
        def align(self, items: Sequence[AlignItem]) -> list[Transcript | Exception]:
            times = [Word(start_s=1.0 + at, end_s=2.0 + at, text="word", confidence=0.001) for at in range(3)]
            utterance = Utterance(start_s=1.0, end_s=4.0, text="word word word", words=tuple(times), confidence=0.9)
            return [replace(item.transcript, utterances=(utterance,)) for item in items]

    counted: list[int] = []
    monkeypatch.setattr(deployment, "create", lambda *_, **__: Deaf())
    monkeypatch.setattr(deployment, "Counter", lambda *_, **__: SimpleNamespace(inc=counted.append))
    assert align(replica) == Transcript(language="en", warnings=(UNHEARD,), dropped=1)
    assert counted == [1]
