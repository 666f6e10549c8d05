"""D9: what is stuck in native code is ended, and costs nobody but the job whose piece it is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import ActorDiedError

from deployments.batcher import Batcher
from deployments.errors import StageTimeoutError, StuckError
from deployments.replica import ComputeThread
from deployments.watchdog import HARD_S
from serve_app.pipeline import stage_calls as calls
from serve_app.pipeline.stage_calls import StageCalls
from tests.support.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONGEST_S = 1.0
SLACK_S = 10.0
REPLICA = """
import asyncio, ctypes, time
from deployments import logs
from deployments.batcher import Batcher
from deployments.errors import StuckError
from deployments.replica import ComputeThread

def work(items):
    if "bad" in items:
        ctypes.{library}(None).sleep(100)
    time.sleep(0.4)
    return items

async def told(batcher, item):
    try:
        print(item, await batcher("job", item), flush=True)
    except StuckError as error:
        print(item, "stuck", error.batched, flush=True)

async def main():
    batcher = Batcher(work, max_batch=1, compute=ComputeThread(longest_s={longest_s}))
    await asyncio.gather(*(told(batcher, item) for item in ("one", "two", "three", "bad", "four")))

logs.configure()
asyncio.run(main())
"""
"""`CDLL` lets go of Python's lock during the call, `PyDLL` keeps it: then no Python runs in the whole process."""


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"])
def test_d9_a_computation_stuck_in_native_code_is_ended(library: str) -> None:
    """The process ends within 10 s of the deadline, lock or not; to wait for one's turn for longer is no fault."""
    began = time.monotonic()
    script = REPLICA.format(library=library, longest_s=LONGEST_S)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - began < LONGEST_S + HARD_S + SLACK_S
    assert ended.returncode == 1, ended
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["one one", "two two"]
    if library == "CDLL":
        assert lines[2:] == ["three three", "bad stuck True"]
        [line] = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
        assert line["message"].startswith("a computation is stuck")
        assert "<string>.work:" in line["stack"]
        assert "/" not in line["stack"]
    else:
        assert "bad stuck True" not in lines
        assert "Timeout" in ended.stderr
        assert "in work" in ended.stderr  # where it stood


async def test_d9_what_ends_in_time_is_left_alone() -> None:
    """Many short computations under a watchdog that fires soon after each: the process lives, all get their answers."""
    compute = ComputeThread(longest_s=60)
    assert await asyncio.gather(*(compute(abs, -number) for number in range(200))) == list(range(200))
    with pytest.raises(ZeroDivisionError):
        await compute(divmod, 1, 0)
    for timer in [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
        timer.join(5)  # one that is cancelled ends in a moment
        assert not timer.is_alive()


class Replicas:
    """Serve with one replica of a stage that batches. One that computes `bad` gets stuck and is replaced."""

    def __init__(self) -> None:
        self.deaths = 0
        self.batches: list[list[str]] = []
        self._start()

    def _start(self) -> None:
        self._batcher: Batcher[str, str] = Batcher(self._compute_here, max_batch=8, compute=self._watched())

    def _watched(self) -> Any:
        async def compute(work: Callable[..., Any], items: Sequence[str]) -> Any:
            await asyncio.sleep(0.001)  # meanwhile others come
            self.batches.append(list(items))
            if "bad" in items:
                self.deaths += 1
                self._start()
                raise StuckError
            return work(items)

        return compute

    def _compute_here(self, items: Sequence[str]) -> list[str]:
        return [item.upper() for item in items]

    def call(self, job_id: str, item: str) -> Callable[..., Any]:
        def remote(**options: bool) -> Any:
            return asyncio.ensure_future(self._batcher(job_id, item, **options))

        return remote


async def test_d9_a_poisonous_piece_ends_its_job_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas die of it; then its job fails with a clear error, and those that shared its batch have answers."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(calls, "LEAVE_S", 0.001)
    stage = Replicas()
    jobs = {name: StageCalls(name, 4) for name in ("poison", "neighbour")}
    asked = [jobs["neighbour"].call(stage.call("neighbour", item)) for item in "abc"]
    poisoned = jobs["poison"].call(stage.call("poison", "bad"))
    *answers, failure = await asyncio.gather(*asked, poisoned, return_exceptions=True)
    assert answers == ["A", "B", "C"]
    assert isinstance(failure, StageTimeoutError)
    assert (failure.code, stage.deaths) == ("PROCESSING_TIMEOUT", 2)
    fatal = [batch for batch in stage.batches if "bad" in batch]
    assert len(fatal[0]) > 1
    assert fatal[1] == ["bad"]


def test_d9_a_piece_is_known_for_stuck_whatever_happens_to_it_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second try dies with a replica that was about to end: stuck again, it is the cause all the same."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(calls, "LEAVE_S", 0.001)
    monkeypatch.setattr(calls, "ISOLATED_WAITS_S", (0.001, 0.001))
    tries = iter([StuckError(batched=True), ActorDiedError(), StuckError(batched=True)])
    asked: list[dict[str, bool]] = []

    def remote(**options: bool) -> Any:
        async def fails() -> None:
            asked.append(options)
            raise next(tries)

        return asyncio.ensure_future(fails())

    with pytest.raises(StageTimeoutError):
        asyncio.run(StageCalls("a", 1).call(remote))
    assert asked == [{}, {"alone": True}, {"alone": True}]


async def test_d9_an_item_that_is_suspected_shares_its_batch_with_none() -> None:
    """Items before and after it go in batches of their own, in every order."""
    batches: list[list[str]] = []

    def compute(items: Sequence[str]) -> list[str]:
        batches.append(list(items))
        return list(items)

    batcher: Batcher[str, str] = Batcher(compute, max_batch=8)
    wanted = [("a", "1", False), ("b", "x", True), ("a", "2", False), ("b", "3", False), ("c", "y", True)]
    answers = [batcher(job_id, item, alone=alone) for job_id, item, alone in wanted]
    assert await asyncio.gather(*answers) == ["1", "x", "2", "3", "y"]
    assert [batch for batch in batches if {"x", "y"} & set(batch)] == [["x"], ["y"]]
