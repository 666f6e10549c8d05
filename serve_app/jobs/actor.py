"""The job actor under its name in the release before. To be removed with the release after this one.

Between the installation of this release and the end of that release's manager, the manager goes on starting actors by
that name, and Ray restarts old ones by it. What starts then is this code, which does not know the old settings.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

POLL_S = 0.5


class JobDriver:
    """Do no work; end as soon as the old manager has ended, so that the new one starts an actor of this release."""

    def __init__(self, _job_id: str, _run: int, _pickled: bytes, manager: Any) -> None:
        self._manager = manager
        self._task = asyncio.get_running_loop().create_task(self._wait())

    def __repr__(self) -> str:
        return "JobDriver(of the release before)"

    async def ping(self) -> None:
        """Return, which shows that the actor's process runs."""

    async def stage_progress(self, _part: str, _fraction: float) -> None:
        """Do nothing. Ray's pickle of the class names each of its functions, `__repr__` too: none may be missing."""

    async def leave(self) -> None:
        """End."""
        ray.kill(ray.get_runtime_context().current_actor)

    cancel = leave

    async def _wait(self) -> None:
        try:
            while True:
                await self._manager.look.remote()
                await asyncio.sleep(POLL_S)
        finally:
            await self.leave()
