"""How the ingress reaches the job manager: finds or makes it, sends it signals, knows whether it works."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayActorError

from deployments import logs
from serve_app.orchestration import placement
from serve_app.orchestration.job_actor import MANAGER_NAME, NAMESPACE, remote_method
from serve_app.orchestration.manager import JobManager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ray.actor import ActorHandle

    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

CHECK_EVERY_S = 2.0
ANSWER_S = 20.0
MANAGER_SILENCE_S = 60.0
"""A manager without a whole turn for so long is reported as broken; one that does not answer for so long is killed."""
BROKEN = ("job manager",)

log = logs.get_logger("ingress")


class ManagerClient:
    """See to it that a manager of this release is alive, and send it signals. A signal that is lost only costs time."""

    def __init__(self, settings: Settings, stages: StageHandles, since: float) -> None:
        """`since` is when this ingress started, see `note_start`: of two releases the later one has the manager."""
        self._settings = settings
        self._identity = settings.identity
        self._stages = stages
        self._since = since
        self._manager: ActorHandle[Any] | None = None
        self._found: ActorHandle[Any] | None = None
        """The one that was asked last, of whatever release."""
        self._failing: tuple[str, ...] = BROKEN
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Signal that there is something new in the job table."""
        if self._manager is not None:
            remote_method(self._manager, "wake").remote()

    def discard(self, job_id: str) -> None:
        """Signal that an ended job's files may be deleted."""
        if self._manager is not None:
            self._manager.discard.remote(job_id)

    def is_managed(self) -> bool:
        """Return whether a manager of this release, or of a later one, has answered."""
        return self._manager is not None

    def failing(self) -> Sequence[str]:
        """Return the parts that were broken at the last check."""
        return self._failing

    def start(self) -> None:
        """Begin to check the manager every two seconds."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        answered_at = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    self._failing = await self._check()
                answered_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next check may succeed
                log.warning("the job manager does not answer", extra={"error": type(error).__name__})
                self._failing = BROKEN
                if self._found is not None and time.monotonic() - answered_at > MANAGER_SILENCE_S:
                    log.warning("the job manager is killed: it hangs")
                    ray.kill(self._found)
                    answered_at = time.monotonic()
            await asyncio.sleep(CHECK_EVERY_S)

    async def _check(self) -> tuple[str, ...]:
        """Find or make the manager, and replace one of an earlier release; return the parts that are broken."""
        manager: Any = await asyncio.to_thread(self._get_or_create)
        identity, since, silent_s = await remote_method(manager, "status").remote()
        if identity != self._identity and since < self._since:
            log.info("the job manager of another release is replaced")
            self._manager = None
            with suppress(RayActorError):
                await remote_method(manager, "step_down").remote()
            manager = await asyncio.to_thread(self._get_or_create)
            _, _, silent_s = await remote_method(manager, "status").remote()
        self._manager = manager
        return BROKEN if silent_s > MANAGER_SILENCE_S else ()

    def _get_or_create(self) -> ActorHandle[Any]:
        manager: Any = (
            ray.remote(JobManager)
            .options(name=MANAGER_NAME, namespace=NAMESPACE, max_concurrency=1000, **placement.detached())
            .remote(self._settings, self._stages, self._since)
        )
        self._found = manager
        return cast("ActorHandle[Any]", manager)
