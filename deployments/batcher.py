"""Batches across jobs: many callers await one item each, one engine computes several at a time.

A queue per job, served in turn, so that a job that brings two hundred items at once does not keep the others waiting. A
batch is cut at the moment when the engine is free, never by a timer: what came while it was busy goes together. Knows
nothing of Ray or of what is computed.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from deployments.errors import StuckError
from deployments.metrics import BATCH_FILL, OTHER
from deployments.replica import Compute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer]
    alone: bool


class Batcher(Generic[Item, Answer]):
    """`await batcher(job_id, item)` gives the item's answer, computed together with those of other callers.

    `work` gets at most `max_batch` items, in a thread, one call at a time; where `weigh` tells what an item weighs, no
    more than `max_weight` together either, but for one that is heavier alone. It returns an answer for each, in order;
    an exception in an answer's place is raised at that item's caller. What `work` itself raises, all callers of that
    batch get. Items whose callers were cancelled are dropped before they are computed; one that is being computed then
    is finished for nobody, beside its neighbours. An item that is to be computed `alone` shares its batch with none:
    one in a batch of which the engine got stuck may be the cause of it. `stage` is by whose name batches are counted.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        max_batch: int,
        weigh: Callable[[Item], float] = lambda _: 0.0,
        max_weight: float = math.inf,
        compute: Compute | None = None,
        stage: str = OTHER,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._weigh = weigh
        self._max_weight = max_weight
        self._compute = compute or Compute()
        self._stage = stage
        self._queues: dict[str, deque[_Waiting[Item, Answer]]] = {}
        """Jobs with items, the one whose turn it is first."""
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, job_id: str, item: Item, *, alone: bool = False) -> Answer:
        """The answer for `item`, in the queue of `job_id`."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(job_id, deque()).append(_Waiting(item, answer, alone))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def all(self, job_id: str, items: Iterable[Item], *, alone: bool = False) -> list[Answer]:
        """The answers for all of `items`, in order. The first failure is raised, and what still waits is dropped."""
        asked = [asyncio.ensure_future(self(job_id, item, alone=alone)) for item in items]
        try:
            return await asyncio.gather(*asked)
        finally:
            for answer in asked:
                answer.cancel()

    async def _serve(self) -> None:
        """Compute until nothing waits."""
        try:
            while batch := self._cut():
                BATCH_FILL.observe(self._fill(batch), stage=self._stage)
                try:
                    answers = await self._compute(self._try, [waiting.item for waiting in batch])
                except StuckError:
                    _fail(batch, StuckError(batched=True))
                except Exception as error:  # noqa: BLE001  the thread takes no work any more: the callers must hear of it
                    _fail(batch, error)
                else:
                    _tell(batch, answers)
        finally:
            self._serving = None

    def _cut(self) -> list[_Waiting[Item, Answer]]:
        """The next batch: one item of each job in turn, until it is full or nothing waits."""
        batch: list[_Waiting[Item, Answer]] = []
        weight = 0.0
        while self._queues and len(batch) < self._max_batch:
            job_id, queue = next(iter(self._queues.items()))
            while queue and queue[0].answer.done():
                queue.popleft()
            if queue:
                weight += self._weigh(queue[0].item)
                if batch and (weight > self._max_weight or queue[0].alone):
                    break  # this job's turn comes first in the next batch
                batch.append(queue.popleft())
            del self._queues[job_id]
            if queue:
                self._queues[job_id] = queue
            if batch and batch[-1].alone:
                break
        return batch

    def _fill(self, batch: Sequence[_Waiting[Item, Answer]]) -> float:
        """How much of what a batch may have this one has, 0-1."""
        weight = sum(self._weigh(waiting.item) for waiting in batch)
        return min(1.0, max(len(batch) / self._max_batch, weight / self._max_weight))

    def _try(self, items: list[Item]) -> list[Answer | Exception]:
        """In the thread: one answer or exception per item; raises nothing, since a thread cannot raise everything."""
        try:
            answers = list(self._work(items))
            if len(answers) != len(items):
                raise ValueError(f"{len(answers)} answers for {len(items)} items")  # noqa: TRY301  each caller gets it
        except Exception as error:  # noqa: BLE001  it is the callers' to handle
            return [error] * len(items)
        except BaseException as panic:  # noqa: BLE001  so libraries written in Rust fail: the callers would wait for ever
            return [RuntimeError(repr(panic))] * len(items)
        return answers


def _tell(batch: Sequence[_Waiting[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
    """Give the callers their answers."""
    for waiting, answer in zip(batch, answers, strict=True):
        if isinstance(answer, Exception):
            _fail([waiting], answer)
        elif not waiting.answer.done():
            waiting.answer.set_result(answer)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
    """Raise `error` at the callers that have no answer yet."""
    if isinstance(error, StopIteration):  # a future takes any exception but this one
        error = RuntimeError(repr(error))
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
