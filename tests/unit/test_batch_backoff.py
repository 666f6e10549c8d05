from __future__ import annotations

import pickle
import weakref
from typing import TYPE_CHECKING

import pytest

from deployments.batch_backoff import CLEAN_RUNS, BatchBackoff, is_dead_device, is_out_of_memory
from deployments.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.counted import Counted

SCARCE = (
    RuntimeError("CUDA failed with error out of memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError("std::bad_alloc"),
)
DEAD = (
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA failed with error an illegal memory access was encountered"),
    RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"),
)


class Engine:
    """Fails as told for batches larger than `fits`, and for every batch with an item of `poison`."""

    def __init__(self, error: Exception, *, fits: int = 100, poison: Sequence[int] = ()) -> None:
        self.error, self.fits, self.poison = error, fits, poison
        self.sizes: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.sizes.append(len(items))
        if len(items) > self.fits or set(items) & set(self.poison):
            raise self.error
        return [item * 2 for item in items]


@pytest.mark.parametrize("error", SCARCE, ids=str)
def test_out_of_memory_halves_the_batch(counted: Counted, error: Exception) -> None:
    """Eight do not fit, four do not, two do: all are answered in order, and the next batches are of two."""
    relieved: list[int] = []
    engine = Engine(error, fits=2)
    backoff = BatchBackoff(engine, max_batch=8, relieve=lambda: relieved.append(1), stage="aligner")
    assert backoff(range(8)) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert engine.sizes == [8, 4, 2, 2, 4, 2, 2]
    assert len(relieved) == 3
    assert counted.total("device_trouble", stage="aligner", what="halved") == 3
    backoff.check()
    engine.sizes.clear()
    assert backoff(range(5)) == [0, 2, 4, 6, 8]
    assert engine.sizes == [2, 2, 1]


def test_memory_that_came_back_is_used() -> None:
    """After enough clean batches twice the size is tried again, up to the configured one."""
    engine = Engine(SCARCE[0], fits=2)
    backoff = BatchBackoff(engine, max_batch=8)
    backoff(range(8))
    engine.fits = 100
    for _ in range(2 * CLEAN_RUNS):
        backoff(range(8))
    engine.sizes.clear()
    backoff(range(8))
    assert engine.sizes == [8]


@pytest.mark.parametrize("error", SCARCE, ids=str)
def test_no_memory_for_a_single_item_is_the_replicas_end(error: Exception) -> None:
    """Down to one and still no memory: an error that another replica may heal, and the health check fails."""
    engine = Engine(error, fits=0)
    backoff = BatchBackoff(engine, max_batch=4)
    answers = backoff(range(4))
    assert engine.sizes == [4, 2, 1]
    assert [type(answer) for answer in answers] == [DeviceError] * 4
    assert isinstance(answers[0], DeviceError)
    assert answers[0].__cause__ is error
    with pytest.raises(DeviceError):
        backoff.check()


@pytest.mark.parametrize("error", DEAD, ids=str)
def test_a_dead_context_is_the_replicas_end(counted: Counted, error: Exception) -> None:
    """What the device's library calls fatal is not tried again: this batch and all later ones fail at once."""
    engine = Engine(error, poison=[2])
    backoff = BatchBackoff(engine, max_batch=4)
    backoff.check()
    assert [type(answer) for answer in backoff([1, 2, 3])] == [DeviceError] * 3
    assert [type(answer) for answer in backoff([5])] == [DeviceError]
    assert counted.total("device_trouble", what="failed") == 1
    assert engine.sizes == [3]
    with pytest.raises(DeviceError):
        backoff.check()


def test_memory_is_let_go_before_it_is_tried_again() -> None:
    """What the failed batch held, also where a library raised anew, is gone when memory is relieved and halves run."""

    class Array:
        """Stands for a tensor that fills the device."""

    held: list[weakref.ref[Array]] = []
    alive: list[bool] = []

    def allocate() -> None:
        array = Array()
        held.append(weakref.ref(array))
        raise SCARCE[0]

    def work(items: Sequence[int]) -> list[int | Exception]:
        alive.append(any(each() is not None for each in held))
        if len(items) > 1:
            try:
                allocate()
            except RuntimeError:
                raise MemoryError  # noqa: B904  as pyannote does
        return list(items)

    relieve = lambda: alive.append(any(each() is not None for each in held))  # noqa: E731
    assert BatchBackoff(work, max_batch=2, relieve=relieve)([1, 2]) == [1, 2]
    assert (len(held), alive) == (1, [False] * 4)


def test_an_inner_backoff_knows_the_device() -> None:
    """An engine with a back-off of its own says DeviceError: the replica is unwell, and nothing is tried again."""
    engine = Engine(DeviceError(), poison=[2])
    backoff = BatchBackoff(engine, max_batch=4)
    assert [type(answer) for answer in backoff([1, 2])] == [DeviceError] * 2
    assert engine.sizes == [2]
    with pytest.raises(DeviceError):
        backoff.check()


def test_a_panic_is_an_items_failure() -> None:
    """What is no `Exception` (libraries written in Rust panic so) is halved to the item, and is one for its caller."""

    class Panic(BaseException):
        pass

    def work(items: Sequence[int]) -> list[int | Exception]:
        if 2 in items:
            raise Panic("index out of bounds")
        return list(items)

    one, two, three = BatchBackoff(work, max_batch=4)([1, 2, 3])
    assert (one, three) == (1, 3)
    assert isinstance(two, RuntimeError)
    assert "index out of bounds" in str(two)


def test_any_other_error_is_the_poisoned_items() -> None:
    """A batch that raises is halved until the items that fail stand alone; the replica stays healthy."""
    error = ValueError("bad item")
    engine = Engine(error, poison=[3, 6])
    backoff = BatchBackoff(engine, max_batch=8)
    assert backoff(range(8)) == [0, 2, 4, error, 8, 10, error, 14]
    backoff.check()
    engine.sizes.clear()
    backoff([0] * 8)
    assert engine.sizes == [8]


def test_lost_answers_are_an_error() -> None:
    """Work that returns too few answers fails instead of running for ever."""
    [answer] = BatchBackoff(lambda _: [], max_batch=2)([1])
    assert isinstance(answer, ValueError)


def test_the_words_of_the_libraries() -> None:
    """Out of memory and dead are told apart by the texts; a bug in Python is neither."""
    assert all(is_out_of_memory(error) and not is_dead_device(error) for error in SCARCE)
    assert all(is_dead_device(error) and not is_out_of_memory(error) for error in DEAD)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_dead_device(KeyError("CUDA error"))


def test_the_error_crosses_processes() -> None:
    """Ray pickles what a replica raises."""
    assert isinstance(pickle.loads(pickle.dumps(DeviceError())), DeviceError)  # noqa: S301  our own bytes
