from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from deployments.batch_backoff import BatchBackoff
from deployments.batcher import Batcher
from deployments.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_S = 10


class Engine:
    """Doubles numbers, when it is let; remembers its batches. Its first batch waits for `go`."""

    def __init__(self, *, busy: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.threads: set[int] = set()
        if not busy:
            self.go.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.go.wait(PATIENCE_S)
        return [ValueError(item) if item < 0 else item * 2 for item in items]

    async def is_busy(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, PATIENCE_S)


def ask(batcher: Batcher[int, int], job_id: str, *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher(job_id, item)) for item in items]


async def test_batches_fill_while_the_engine_is_busy() -> None:
    """The first item starts at once; all that comes meanwhile goes in full batches, in order, one call at a time."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=4)
    first = ask(batcher, "a", 0)
    await engine.is_busy()
    rest = ask(batcher, "a", *range(1, 11))
    await asyncio.sleep(0)
    engine.go.set()
    assert await asyncio.gather(*first, *rest) == [2 * i for i in range(11)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


async def test_a_small_job_does_not_wait_behind_a_large_one() -> None:
    """A brings 200 items, then B ten: B's are computed in turn with A's and are done when A has had as many."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=8)
    large = ask(batcher, "a", *range(1000, 1200))
    await engine.is_busy()
    small = ask(batcher, "b", *range(10))
    await asyncio.sleep(0)
    engine.go.set()
    await asyncio.gather(*large, *small)
    order = [item for batch in engine.batches for item in batch]
    last = order.index(9)
    assert [item for item in order if item < 1000] == list(range(10))
    assert [item for item in order if item >= 1000] == list(range(1000, 1200))
    assert last <= 8 + 2 * 10


async def test_turns_go_on_from_batch_to_batch() -> None:
    """With more jobs than places in a batch, the jobs that were left out come first in the next one."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=2)
    tasks = ask(batcher, "x", 0)
    await engine.is_busy()
    for job in range(1, 4):
        tasks += ask(batcher, str(job), job * 10, job * 10 + 1)
    await asyncio.sleep(0)
    engine.go.set()
    await asyncio.gather(*tasks)
    assert engine.batches == [[0], [10, 20], [30, 11], [21, 31]]


async def test_a_poisoned_item_fails_alone() -> None:
    """An exception in an answer's place is raised at that caller; its neighbours in the batch are answered."""
    tasks = ask(Batcher(Engine(busy=False), max_batch=3), "a", 1, -2, 3)
    one, two, three = await asyncio.gather(*tasks, return_exceptions=True)
    assert (one, three) == (2, 6)
    assert isinstance(two, ValueError)


class Panic(BaseException):
    """What libraries written in Rust raise."""


@pytest.mark.parametrize("error", [RuntimeError("broken"), StopIteration(1), Panic()], ids=repr)
async def test_an_engine_that_raises_fails_its_batch_only(error: BaseException) -> None:
    """All callers of that batch hear of it, none waits for ever, and the next batch is computed."""

    def fails_once(items: Sequence[int]) -> list[int | Exception]:
        if 1 in items:
            raise error
        return list(items)

    tasks = ask(Batcher(fails_once, max_batch=2), "a", 1, 2, 3, 4)
    one, two, three, four = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
    assert (three, four) == (3, 4)
    assert isinstance(one, RuntimeError)
    assert isinstance(two, RuntimeError)


async def test_wrong_number_of_answers_is_an_error() -> None:
    """An engine that loses an item cannot mix up the answers of the others."""
    tasks = ask(Batcher(lambda items: list(items[1:]), max_batch=2), "a", 1, 2)
    assert [type(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)] == [ValueError, ValueError]


async def test_cancelled_items_are_not_computed() -> None:
    """A caller that is gone before its turn costs the engine nothing; one that is computed harms no neighbour."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=4)
    running = ask(batcher, "a", 1)
    await engine.is_busy()
    waiting = ask(batcher, "a", *range(2, 10)) + ask(batcher, "b", 100)
    await asyncio.sleep(0)
    for task in (*running, *waiting[:6]):
        task.cancel()
    engine.go.set()
    answers = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert [type(answer) for answer in answers[:7]] == [asyncio.CancelledError] * 7
    assert answers[7:] == [16, 18, 200]
    assert engine.batches == [[1], [8, 100, 9]]


async def test_a_cancelled_item_does_not_harm_its_neighbours_in_a_running_batch() -> None:
    """Two jobs' items are being computed together; one job goes: the other's are answered, and it gets no more."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=8)
    gone, stays = ask(batcher, "a", 1, 2, 3), ask(batcher, "b", 10, 20, 30)
    await engine.is_busy()
    assert engine.batches == [[1, 10, 2, 20, 3, 30]]
    late = ask(batcher, "a", 4) + ask(batcher, "b", 40)
    await asyncio.sleep(0)
    for task in (*gone, late[0]):
        task.cancel()
    engine.go.set()
    assert await asyncio.gather(*stays, late[1]) == [20, 40, 60, 80]
    assert engine.batches[1:] == [[40]]
    assert [task.cancelled() for task in gone] == [True] * 3


async def test_all_items_of_a_caller() -> None:
    """`all` gives a list in order; the first failure is raised, and the caller's waiting items are not computed."""
    engine = Engine(busy=False)
    batcher = Batcher(engine, max_batch=2)
    assert await batcher.all("a", [3, 1, 2]) == [6, 2, 4]
    assert await batcher.all("a", []) == []
    engine.batches.clear()
    with pytest.raises(ValueError, match="-1"):
        await batcher.all("a", [1, -1, *range(100)])
    assert await batcher("b", 1000) == 2000
    assert len(engine.batches) < 10
    assert batcher._queues == {}


async def test_who_cancels_all_drops_all() -> None:
    """A caller that is gone leaves nothing to compute behind."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=2)
    caller = asyncio.create_task(batcher.all("a", range(10)))
    await engine.is_busy()
    caller.cancel()
    neighbour = ask(batcher, "b", 1000)
    await asyncio.sleep(0)
    engine.go.set()
    assert await asyncio.gather(*neighbour) == [2000]
    assert engine.batches == [[0, 1], [1000]]
    assert caller.cancelled()


async def test_a_batch_has_a_weight() -> None:
    """Items that weigh: no batch is heavier than allowed but for one heavy item; turns go on where they stopped."""
    engine = Engine()
    batcher = Batcher(engine, max_batch=4, weigh=float, max_weight=10)
    tasks = ask(batcher, "x", 0)
    await engine.is_busy()
    tasks += ask(batcher, "a", 6, 5, 1, 1) + ask(batcher, "b", 3, 50, 2) + ask(batcher, "c", 2)
    await asyncio.sleep(0)
    engine.go.set()
    assert await asyncio.gather(*tasks) == [0, 12, 10, 2, 2, 6, 100, 4, 4]
    assert engine.batches == [[0], [6, 3], [2, 5], [50], [1, 2, 1]]


async def test_the_backoff_under_the_batcher() -> None:
    """Out of memory with more than two items: every caller is answered all the same."""

    def narrow(items: Sequence[int]) -> list[int | Exception]:
        if len(items) > 2:
            raise RuntimeError("CUDA failed with error out of memory")
        return [item * 2 for item in items]

    batcher = Batcher(BatchBackoff(narrow, max_batch=8), max_batch=8)
    assert await asyncio.gather(*ask(batcher, "a", *range(12))) == [2 * i for i in range(12)]


async def test_a_lost_device_is_told_to_all() -> None:
    """A dead context: every caller gets the error that another replica may heal."""

    def dead(_: Sequence[int]) -> list[int | Exception]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    batcher = Batcher(BatchBackoff(dead, max_batch=8), max_batch=2)
    assert [type(answer) for answer in await asyncio.gather(*ask(batcher, "a", 1, 2, 3), return_exceptions=True)] == [
        DeviceError
    ] * 3
