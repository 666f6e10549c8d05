"""The drivers' actors as the manager sees them: found, started, cancelled, killed. Knows nothing of the database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from serve_app.orchestration.job_actor import NAMESPACE, actor_name, launch
from serve_app.orchestration.placement import check_reach

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from serve_app.jobs.job import Job
    from serve_app.pipeline.pipeline import Stages
    from serve_app.settings import Settings

PREFIX = "job:"
ANSWER_S = 10.0


class JobActors:
    """One per running job. To be used inside the manager's actor, to which the drivers report."""

    def __init__(self, settings: Settings, stages: Stages) -> None:
        self._settings = settings
        self._stages = stages

    async def exists(self, job: Job) -> bool:
        """Whether Ray knows a driver of the job's present run, dead processes that it restarts included."""
        return await self._find(job) is not None

    async def start(self, job: Job) -> None:
        """Make a driver and wait until it answers.

        Raises:
            DatabaseOutOfReachError: It might be made where it cannot see its job.
        """
        await asyncio.to_thread(check_reach, self._settings.database)
        await launch(job, self._settings, self._stages, ray.get_runtime_context().current_actor).ping.remote()

    async def answers(self, job: Job) -> bool:
        """Whether a driver is there whose process runs: it answers although it waits for the database."""
        driver = await self._find(job)
        try:
            async with asyncio.timeout(ANSWER_S):
                return driver is not None and await driver.ping.remote() is None
        except TimeoutError:
            return False
        except RayError:
            return True  # dead or about to start again: not one that holds anything up

    async def cancel(self, job: Job) -> None:
        """Ask a driver to stop; one that hangs does not hold up who asks."""
        if driver := await self._find(job):
            driver.cancel.remote()

    async def leave(self, job: Job) -> None:
        """Ask a driver to give its job back, and go."""
        if driver := await self._find(job):
            driver.leave.remote()

    async def kill(self, job: Job) -> bool:
        """End a driver, False where there is none.

        Its name is free at once; a process that does not hear, because it is stopped or hangs, is killed by Ray's
        raylet 5 s later (Ray 2.60, measured).
        """
        driver = await self._find(job)
        if driver is not None:
            ray.kill(driver)
        return driver is not None

    async def _find(self, job: Job) -> ActorHandle[Any] | None:
        try:
            return await asyncio.to_thread(ray.get_actor, actor_name(job.job_id, job.run), NAMESPACE)
        except ValueError:
            return None

    async def strays(self, running: set[tuple[str, int]]) -> set[str]:
        """Names of drivers of all but these (job, run): some may still tell the end of theirs."""
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        wanted = {actor_name(job_id, run) for job_id, run in running}
        ours = {actor["name"] for actor in named if actor["namespace"] == NAMESPACE}
        return {name for name in ours - wanted if name.startswith(PREFIX)}

    async def end(self, name: str) -> None:
        """Kill a stray."""
        try:
            ray.kill(await asyncio.to_thread(ray.get_actor, name, NAMESPACE))
        except ValueError:
            return
