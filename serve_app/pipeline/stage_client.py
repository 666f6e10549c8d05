"""How a driver calls the stages: bounded per job, retried when a replica dies, never when the stage itself says no."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayTaskError
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
WAITS_ALONE_S = (1.0, 8.0)
"""Before each try of a call alone: the router has to hear that its replica, or the whole node, is gone."""


class ArgumentLostError(Exception):
    """What a call refers to died with the replica that was making it. The call's own replica is well."""


TRANSIENT = (
    RayActorError,
    ObjectLostError,
    ArgumentLostError,
    BackPressureError,
    DeploymentUnavailableError,
    DeviceError,
)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = logs.get_logger("calls")


@dataclass(slots=True)
class _Tries:
    """What is known of a call over all its tries, above all whether an engine got stuck in it."""

    name: str
    number: int = 0
    before: bool = False
    options: dict[str, bool] = field(default_factory=dict)

    def note(self, error: StuckError) -> None:
        if self.before:
            raise StageTimeoutError from error
        self.before = True
        self.options = {"alone": True} if error.batched else {}


class StageCalls:
    """The calls of one job: at most `max_in_flight` at once over all stages.

    `alone` keeps those of other jobs off that want to be alone, too.
    """

    def __init__(
        self,
        job_id: str,
        max_in_flight: int,
        alone: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        trace: Trace = UNTRACED,
    ) -> None:
        self._job_id = job_id
        self._alone = alone
        self._trace = trace
        self._max_in_flight = max_in_flight
        self._slots = asyncio.Semaphore(max_in_flight)

    async def call(
        self,
        remote: Callable[..., Any],
        *args: Any,
        name: str = "call",
        before_retry: Callable[[], None] | None = None,
    ) -> Any:
        """Await one stage call in a slot. Raises what the stage raised, or Ray's error when retries did not help.

        `before_retry` renews what the call refers to: its argument may be what was lost. A call whose replica died
        is made again while no other job makes such a one, and after two more deaths is known for the cause. `name` is
        what the trace calls it.
        """
        tries = _Tries(name)
        async with self._slots:
            try:
                return await self._tried(remote, *args, before_retry=before_retry, tries=tries)
            except RayActorError as death:
                self._warn(death)
            async with self._alone():
                for wait_s in WAITS_ALONE_S:
                    await asyncio.sleep(wait_s)
                    if before_retry is not None:
                        before_retry()
                    try:
                        return await self._tried(remote, *args, before_retry=before_retry, tries=tries)
                    except RayActorError as death:
                        self._warn(death)
                        last = death
            raise InternalJobError from last

    def _warn(self, error: Exception) -> None:
        log.warning("stage call retried", extra=logs.about(self._job_id, error=type(error).__name__))

    async def _tried(
        self, remote: Callable[..., Any], *args: Any, before_retry: Callable[[], None] | None, tries: _Tries
    ) -> Any:
        """Make the call until its replica dies under it.

        A call in which the engine got stuck is made once more, `alone` where it shared a batch with others', and then
        is known for the cause.
        """
        for attempt in range(RETRIES):
            wait_s = FIRST_WAIT_S * 2**attempt
            try:
                return await self._once(remote, *args, tries=tries)
            except (StuckError, *TRANSIENT) as error:
                if isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError):
                    raise
                if isinstance(error, StuckError):
                    tries.note(error)
                    wait_s += LEAVE_S  # or it would be made at the replica that is about to end
                self._warn(error)
                await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311
                if before_retry is not None:
                    before_retry()
        return await self._once(remote, *args, tries=tries)

    async def _once(self, remote: Callable[..., Any], *args: Any, tries: _Tries) -> Any:
        tries.number += 1
        with self._trace.span(tries.name, number=tries.number):
            response = remote(*args, **tries.options)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except RayServeException as error:
                if isinstance(error.__cause__, RayActorError):  # as Serve's router tells it, by no class of its own
                    raise ArgumentLostError from error
                raise
            except RayTaskError as error:
                if isinstance(error, TRANSIENT) or not isinstance(error.cause, Exception):
                    raise
                raise error.cause from error

    async def map(self, work: Callable[[Item], Awaitable[Answer]], items: Iterable[Item]) -> list[Answer]:
        """`work` for each item, some at a time, answers in order. The first failure cancels the rest.

        No more items wait for a slot than may be in flight, so a stage with many pieces does not starve the others.
        """
        answers: dict[int, Answer] = {}
        todo = enumerate(items)

        async def worker() -> None:
            for index, item in todo:
                answers[index] = await work(item)

        await together(*(worker() for _ in range(self._max_in_flight)))
        return [answers[index] for index in sorted(answers)]


async def together(*coroutines: Awaitable[Any]) -> list[Any]:
    """All at once; the first failure cancels the others and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
