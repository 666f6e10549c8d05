"""Batches across jobs: many callers await one item each, one engine computes several items at a time.

Each job has a queue, and the queues are served in turn, so that a job with two hundred items does not delay the others.
A batch is formed when the engine becomes free, never by a timer: it has the items that arrived while the engine was
busy. Knows nothing of Ray or of what is computed.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from deployments.batch_backoff import one_each
from deployments.errors import StuckError
from deployments.metrics import BATCH_FILL, OTHER
from deployments.replica import ComputeThread

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
    """`await batcher(job_id, item)` returns the item's answer, computed in one batch with items of other callers.

    `work` is called in a thread, one call at a time, with at most `max_batch` items, whose sum of `weigh(item)` is at
    most `max_weight`; a single item may weigh more. It returns an answer for each item, in order. An exception among
    the answers is raised to that item's caller; an exception that `work` raises is raised to all callers of the batch.
    Items whose callers were cancelled are removed before they are computed. An item that is marked `alone` gets a batch
    of its own: it was in a batch on which an engine got stuck, and may be the cause. `stage` labels the metrics.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        max_batch: int,
        weigh: Callable[[Item], float] = lambda _: 0.0,
        max_weight: float = math.inf,
        compute: ComputeThread | None = None,
        stage: str = OTHER,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._weigh = weigh
        self._max_weight = max_weight
        self._compute = compute or ComputeThread()
        self._stage = stage
        self._queues: dict[str, deque[_Waiting[Item, Answer]]] = {}
        """By job; the first one is served next."""
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, job_id: str, item: Item, *, alone: bool = False) -> Answer:
        """Return the answer for `item`, which waits in the queue of `job_id`; `alone`: in a batch of its own."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(job_id, deque()).append(_Waiting(item, answer, alone))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await answer

    async def all(self, job_id: str, items: Iterable[Item], *, alone: bool = False) -> list[Answer]:
        """Return the answers for `items`, in order. Raises the first failure and removes the items that still wait."""
        asked = [asyncio.ensure_future(self(job_id, item, alone=alone)) for item in items]
        try:
            return await asyncio.gather(*asked)
        finally:
            for answer in asked:
                answer.cancel()

    async def _serve(self) -> None:
        """Compute batch after batch until nothing waits."""
        try:
            while batch := self._next_batch():
                BATCH_FILL.observe(self._fill(batch), stage=self._stage)
                try:
                    answers = await self._compute(self._try, [waiting.item for waiting in batch])
                except StuckError:
                    _fail(batch, StuckError(batched=True))
                except Exception as error:  # noqa: BLE001  the thread takes no more work: the callers must get the reason
                    _fail(batch, error)
                else:
                    _deliver(batch, answers)
        finally:
            self._serving = None

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        """Take the next batch from the queues: one item of each job in turn, until it is full or nothing waits."""
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
        """Return how full a batch is, 0-1."""
        weight = sum(self._weigh(waiting.item) for waiting in batch)
        return min(1.0, max(len(batch) / self._max_batch, weight / self._max_weight))

    def _try(self, items: list[Item]) -> list[Answer | Exception]:
        """Compute in the thread and return one answer or exception per item. Raises nothing."""
        try:
            return one_each(self._work, items)
        except Exception as error:  # noqa: BLE001  the callers handle it
            return [error] * len(items)


def _deliver(batch: Sequence[_Waiting[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
    """Set the answers as the results that the callers await."""
    for waiting, answer in zip(batch, answers, strict=True):
        if isinstance(answer, Exception):
            _fail([waiting], answer)
        elif not waiting.answer.done():
            waiting.answer.set_result(answer)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
    """Raise `error` to the callers that have no answer yet."""
    if isinstance(error, StopIteration):  # the one exception that a future does not accept
        error = RuntimeError(repr(error))
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
