from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from sqlalchemy.exc import OperationalError

from serve_app.callbacks import progress_reporter
from serve_app.callbacks.progress_reporter import ProgressReporter
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage

NOW = Progress(percent=12, stage=Stage.EXTRACTION)


class Receiver:
    """Stands in for the sender: takes its time, and writes down what it was given."""

    def __init__(self, slow_s: float = 0.0, *, taken: bool = True) -> None:
        self.slow_s = slow_s
        self.taken = taken
        self.sequences: list[int] = []
        self.at: list[float] = []

    async def send_progress(self, _job_id: str, _url: str, _body: bytes, *, message_id: str, sequence: int) -> bool:
        assert message_id.startswith("msg_")
        self.sequences.append(sequence)
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.slow_s)
        return self.taken


async def run(
    receiver: Receiver, seconds: float, *, now=lambda: NOW, noise_s: float | None = None, broken: int = 0
) -> list[int]:
    """What was stored in `seconds` of a reporter's life; `noise_s`: how often it hears that something may be new."""
    stored: list[int] = []
    failures = iter([True] * broken)

    async def report(_: Progress) -> int:
        if next(failures, False):
            raise OperationalError("", {}, Exception())
        stored.append(len(stored) + 1)
        return stored[-1]

    about = {"job_id": "a", "url": "http://b", "locale": "ko"}
    reporter = ProgressReporter(receiver, **about, now=now, report=report, heartbeat_s=0.2)
    if noise_s is None:
        await asyncio.sleep(seconds)
    else:
        for _ in range(round(seconds / noise_s)):
            await asyncio.sleep(noise_s)
            reporter.changed()
    await reporter.close()
    return stored


def test_the_heartbeat_holds_in_silence_and_in_noise(monkeypatch):
    """However often something is reported that changes no number, the backend hears of the job in time."""
    monkeypatch.setattr("serve_app.callbacks.progress_reporter.MIN_INTERVAL_S", 0.01)
    silent = asyncio.run(run(Receiver(), 1.5))
    noisy = asyncio.run(run(Receiver(), 1.5, noise_s=0.02))
    assert len(silent) >= 5
    assert len(noisy) >= 5


def test_a_database_error_does_not_end_the_telling(monkeypatch):
    """Progress goes on when the database comes back."""
    monkeypatch.setattr("serve_app.callbacks.progress_reporter.MIN_INTERVAL_S", 0.01)
    assert len(asyncio.run(run(Receiver(), 1.0, broken=2))) >= 2


def test_at_most_one_a_second_and_the_newest_wins(monkeypatch):
    """A slow backend gets the newest number next, not every one in between."""
    monkeypatch.setattr("serve_app.callbacks.progress_reporter.MIN_INTERVAL_S", 0.05)
    percents = iter(range(1000))
    receiver = Receiver(slow_s=0.3)
    stored = asyncio.run(run(receiver, 1.4, now=lambda: Progress(percent=next(percents), stage=Stage.EXTRACTION)))
    assert len(stored) > 15
    assert 3 <= len(receiver.sequences) <= 6
    assert receiver.sequences == sorted(receiver.sequences)
    assert receiver.sequences[2] - receiver.sequences[1] > 3


@pytest.mark.parametrize("taken", [True, False])
def test_at_most_one_a_second_however_fast_it_changes(monkeypatch, taken):
    """Posts of one job's progress keep their distance, repeated tries too; a second it is."""
    assert progress_reporter.MIN_INTERVAL_S == 1.0
    monkeypatch.setattr(progress_reporter, "MIN_INTERVAL_S", 0.1)
    percents = iter(range(1000))
    receiver = Receiver(taken=taken)
    asyncio.run(run(receiver, 0.75, now=lambda: Progress(percent=next(percents), stage=Stage.EXTRACTION), noise_s=0.01))
    assert len(receiver.at) >= 3
    assert min(later - earlier for earlier, later in pairwise(receiver.at)) > 0.095


def test_an_untaken_progress_is_tried_three_times(monkeypatch):
    """At most three tries of one callback, then it is dropped."""
    monkeypatch.setattr("serve_app.callbacks.progress_reporter.MIN_INTERVAL_S", 0.02)
    receiver = Receiver(taken=False)
    asyncio.run(run(receiver, 0.18))
    assert receiver.sequences == [1, 1, 1]


@pytest.mark.parametrize(("slow_s", "arrives"), [(0.2, True), (60.0, False)])
def test_a_progress_in_flight_arrives_before_the_end(slow_s, arrives):
    """Closing waits a moment for the receiver's answer: cut off, its handler could run after that of the job's end."""
    answered = []

    class Slow(Receiver):
        async def send_progress(self, *args, **named) -> bool:
            taken = await super().send_progress(*args, **named)
            answered.append(named["sequence"])
            return taken

    async def closes_s() -> float:
        receiver = Slow(slow_s=slow_s)
        about = {"job_id": "a", "url": "http://b", "locale": "ko", "now": lambda: NOW, "heartbeat_s": 30}
        reporter = ProgressReporter(receiver, **about, report=lambda _: asyncio.sleep(0, 1))
        while not receiver.sequences:  # noqa: ASYNC110 - a stand-in has no event
            await asyncio.sleep(0.01)
        began = asyncio.get_running_loop().time()
        await reporter.close()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(closes_s()) < 5
    assert answered == ([1] if arrives else [])
