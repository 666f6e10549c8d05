"""Retries a failed batch in halves, and recognises when the device itself has failed.

    batch of 8 ─ out of memory ─▸ 4 + 4 ─▸ 2 + 2 … ─▸ 1 ─ out of memory ─▸ DeviceError, the health check fails
               ─ dead context ──────────────────────────────────────────▸ DeviceError, the health check fails
               ─ any other error ─▸ halves, down to the single item that fails: its own error

Knows nothing of Ray or of what is computed. Used by one thread at a time.
"""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from deployments.errors import DeviceError
from deployments.metrics import DEVICE_TROUBLE, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CLEAN_RUNS: Final = 50
"""After so many batches without a lack of memory twice the size is tried: others may have released the device."""

_OUT_OF_MEMORY: Final = re.compile(r"out of memory|ALLOC_FAILED|bad_alloc|can't allocate memory", re.IGNORECASE)
_DEAD: Final = re.compile(r"CUDA (?:error|failed)|device-side assert|cuBLAS failed|cuDNN", re.IGNORECASE)
"""How torch and CTranslate2 report a CUDA context that is dead."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether `error` is a lack of memory, so that a smaller batch may help."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def is_dead_device(error: Exception) -> bool:
    """Return whether the device is lost to this process. An inner `BatchBackoff` reports that as a `DeviceError`."""
    return isinstance(error, DeviceError) or (
        isinstance(error, RuntimeError) and not is_out_of_memory(error) and _DEAD.search(str(error)) is not None
    )


def one_each(
    work: Callable[[Sequence[Item]], Sequence[Answer | Exception]], items: Sequence[Item]
) -> list[Answer | Exception]:
    """Return `work`'s answers for `items`. Raises what it raises, and ValueError where it gives too few or too many."""
    try:
        answers = list(work(items))
    except Exception:
        raise
    except BaseException as panic:  # noqa: BLE001  Rust code's: a thread gets no interrupt, and callers would wait
        raise RuntimeError(repr(panic)) from None
    if len(answers) != len(items):
        raise ValueError(f"{len(answers)} answers for {len(items)} items")
    return answers


def hits_all(error: Exception) -> bool:
    """Return whether `error` comes from the device and not from an item of a batch."""
    return is_out_of_memory(error) or is_dead_device(error)


def in_halves(work: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> list[Answer | Exception]:
    """Return `work`'s answers for `items`. A failed batch is tried again in halves; an item's own error is its answer.

    Raises what hits all items: a lack of memory, a dead device.
    """
    try:
        return list(work(items))
    except Exception as error:
        if hits_all(error):
            raise
        if len(items) == 1:
            return [error]
    half = len(items) // 2
    return in_halves(work, items[:half]) + in_halves(work, items[half:])


class BatchBackoff(Generic[Item, Answer]):
    """Calls `work` on batches, with the steps above. A call raises nothing: exceptions take their items' places.

    `relieve` is called after each lack of memory, such as `torch.cuda.empty_cache`. `stage` labels the metrics.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        max_batch: int,
        relieve: Callable[[], None] = lambda: None,
        stage: str = OTHER,
    ) -> None:
        self._work = work
        self._stage = stage
        self._max_batch = max_batch
        self._relieve = relieve
        self._batch_size = max_batch
        self._clean_runs = 0
        self._fault: Exception | None = None
        DEVICE_TROUBLE.begin(stage=stage)

    def __call__(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Return one answer or exception for each of `items`, in order."""
        answers: list[Answer | Exception] = []
        while len(answers) < len(items):
            answers += self._step(items[len(answers) : len(answers) + self._batch_size])
        return answers

    def check(self) -> None:
        """Raise DeviceError once the device has failed: only a new process helps."""
        if self._fault is not None:
            raise DeviceError from self._fault

    def _step(self, items: Sequence[Item]) -> list[Answer | Exception]:
        if self._fault is not None:
            return [DeviceError() for _ in items]
        try:
            answers = one_each(self._work, items)
        except Exception as error:  # noqa: BLE001  halving finds out which items it hits
            return self._failed(items, error)
        self._grow()
        return answers

    def _failed(self, items: Sequence[Item], error: Exception) -> list[Answer | Exception]:
        scarce = is_out_of_memory(error)
        _clear_frames(error)
        if is_dead_device(error) or (scarce and len(items) == 1):
            self._fault = error
            if not isinstance(error, DeviceError):  # else the inner BatchBackoff has counted it
                DEVICE_TROUBLE.inc(stage=self._stage, what="failed")
            return [_lost(error) for _ in items]
        if len(items) == 1:
            return [error]
        half = (len(items) + 1) // 2
        if scarce:
            self._batch_size, self._clean_runs = half, 0
            DEVICE_TROUBLE.inc(stage=self._stage, what="halved")
            self._relieve()
        return self._step(items[:half]) + self._step(items[half:])

    def _grow(self) -> None:
        self._clean_runs += 1
        if self._batch_size < self._max_batch and self._clean_runs >= CLEAN_RUNS:
            self._batch_size, self._clean_runs = min(self._max_batch, self._batch_size * 2), 0


def _clear_frames(error: BaseException | None) -> None:
    """Clear the frames of `error`, which hold the arrays of the failed batch, to free their memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _lost(cause: Exception) -> DeviceError:
    error = DeviceError()
    error.__cause__ = cause
    return error


def answers(given: Sequence[Answer | Exception]) -> list[Answer]:
    """Return the answers of a `BatchBackoff` whose items are all of one job. Raises the first error among them."""
    checked: list[Answer] = []
    for answer in given:
        if isinstance(answer, Exception):
            raise answer
        checked.append(answer)
    return checked
