"""How a job calls a stage: so many calls at a time, again when a replica dies, never again when the stage itself fails.

a replica dies, or its device does      the call is made again, up to `RETRIES` times
Ray's memory monitor kills it           likewise; then INSUFFICIENT_RESOURCES
its process dies during the call        the call is isolated: made again while no other job makes an isolated call
it dies in every isolated try, too      the call is the cause: INTERNAL_ERROR
its engine gets stuck                   made again once, in a batch of its own; stuck again: PROCESSING_TIMEOUT
"""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ray.exceptions import ActorUnavailableError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from deployments import logs
from deployments.errors import DeviceError, InternalJobError, StageTimeoutError, StuckError
from deployments.watchdog import LEAVE_S
from serve_app.observability.tracing import UNTRACED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from serve_app.observability.tracing import Trace

RETRIES = 6
FIRST_WAIT_S = 0.5
"""Before the first retry; each further one waits twice as long, give or take a fifth: 31.5 s in all."""
ISOLATED_WAITS_S = (1.0, 8.0)
"""Before each isolated try: the router needs time to learn that its replica, or the whole node, is gone."""


class ArgumentLostError(Exception):
    """An argument of the call was lost with the replica that computed it; the called replica is well."""


TRANSIENT = (
    RayActorError,
    OutOfMemoryError,  # no RayActorError: Ray's memory monitor has killed the replica, perhaps for another's memory
    ObjectLostError,
    ArgumentLostError,
    BackPressureError,
    DeploymentUnavailableError,
    DeviceError,
)
"""Errors after which the same call may succeed at another replica."""

First = TypeVar("First")
Second = TypeVar("Second")
Third = TypeVar("Third")
Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = logs.get_logger("calls")


@dataclass(slots=True)
class _Call:
    """One call over all its tries. `remote` starts a try; `before_retry` renews what its arguments refer to."""

    remote: Callable[..., Any]
    name: str
    before_retry: Callable[[], None]
    tries: int = 0
    was_stuck: bool = False
    options: dict[str, bool] = field(default_factory=dict)

    def note_stuck(self, error: StuckError) -> None:
        """Have the next try use a batch of its own where others' items shared this one. Raises the second time."""
        if self.was_stuck:
            raise StageTimeoutError from error
        self.was_stuck = True
        self.options = {"alone": True} if error.batched else {}


class StageCalls:
    """The calls of one job, at most `max_in_flight` at a time over all stages."""

    def __init__(
        self,
        job_id: str,
        max_in_flight: int,
        isolation: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        trace: Trace = UNTRACED,
    ) -> None:
        """`isolation` makes a context that only one job at a time can be in: isolated tries are made there."""
        self._job_id = job_id
        self._isolation = isolation
        self._trace = trace
        self._max_in_flight = max_in_flight
        self._slots = asyncio.Semaphore(max_in_flight)

    async def call(
        self,
        remote: Callable[..., Any],
        *args: Any,
        name: str = "call",
        before_retry: Callable[[], None] = lambda: None,
    ) -> Any:
        """Await `remote(*args)`, a call of a stage, in a slot.

        `name` is the name of its spans. `before_retry` renews what the arguments refer to, which may be what was lost.

        Raises:
            StageTimeoutError: Its engine got stuck twice.
            InternalJobError: Its replica died in every isolated try.
            Exception: The stage's own error, at once, or Ray's after the last retry.
        """
        call = _Call(partial(remote, *args), name, before_retry)
        async with self._slots:
            try:
                return await self._try_until_replica_dies(call)
            except RayActorError as death:
                self._log_retry(death)
            async with self._isolation():
                for wait_s in ISOLATED_WAITS_S:
                    await asyncio.sleep(wait_s)
                    call.before_retry()
                    try:
                        return await self._try_until_replica_dies(call)
                    except RayActorError as death:
                        self._log_retry(death)
                        last = death
            raise InternalJobError from last

    async def _try_until_replica_dies(self, call: _Call) -> Any:
        for retry in range(RETRIES):
            wait_s = FIRST_WAIT_S * 2**retry
            try:
                return await self._try(call)
            except (StuckError, *TRANSIENT) as error:
                if isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
                    raise
                if isinstance(error, StuckError):
                    call.note_stuck(error)
                    wait_s += LEAVE_S  # the stuck replica takes calls until its process ends
                self._log_retry(error)
                await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311
                call.before_retry()
        return await self._try(call)

    async def _try(self, call: _Call) -> Any:
        call.tries += 1
        with self._trace.span(call.name, number=call.tries):
            response = call.remote(**call.options)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except RayServeException as error:
                if isinstance(error.__cause__, RayActorError):  # Serve's router has no class of its own for this
                    raise ArgumentLostError from error
                raise
            except RayTaskError as error:
                if isinstance(error, TRANSIENT) or not isinstance(error.cause, Exception):
                    raise
                raise error.cause from error

    def _log_retry(self, error: Exception) -> None:
        log.warning("stage call retried", extra=logs.about(self._job_id, error=type(error).__name__))

    async def map(self, work: Callable[[Item], Awaitable[Answer]], items: Iterable[Item]) -> list[Answer]:
        """Await `work` for each item, `max_in_flight` at a time; return the answers in order.

        The first failure cancels the rest. No more items than that wait for a slot, so that a stage with many pieces
        does not hold up the others.
        """
        answers: dict[int, Answer] = {}
        todo = enumerate(items)

        async def worker() -> None:
            for index, item in todo:
                answers[index] = await work(item)

        await together(*(worker() for _ in range(self._max_in_flight)))
        return [answers[index] for index in sorted(answers)]


@overload
async def together(first: Awaitable[First], second: Awaitable[Second], /) -> tuple[First, Second]: ...
@overload
async def together(
    first: Awaitable[First], second: Awaitable[Second], third: Awaitable[Third], /
) -> tuple[First, Second, Third]: ...
@overload
async def together(*awaitables: Awaitable[Answer]) -> tuple[Answer, ...]: ...
async def together(*awaitables: Awaitable[Any]) -> tuple[Any, ...]:
    """Await all at once. The first failure cancels the others and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
