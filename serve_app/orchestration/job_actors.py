"""Job actors as the manager sees them: found, started, cancelled, killed. Knows nothing of the database's content."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from serve_app.orchestration.job_actor import NAMESPACE, actor_name, launch
from serve_app.orchestration.placement import check_reach
from serve_app.orchestration.renamed_methods import remote_method

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from serve_app.jobs.job import Job
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

PREFIX = "job:"
ANSWER_S = 10.0
"""How long an actor whose process runs may take to answer a ping."""


class JobActors:
    """One actor per running job. To be used inside the manager's actor, whose handle the job actors get."""

    def __init__(self, settings: Settings, stages: StageHandles) -> None:
        self._settings = settings
        self._stages = stages

    async def exists(self, job: Job) -> bool:
        """Return whether Ray knows an actor of the job's present run, even one whose process it is restarting."""
        return await self._find(job) is not None

    async def start(self, job: Job) -> None:
        """Create the job's actor and wait until it answers.

        Raises:
            DatabaseOutOfReachError: The actor might run on a machine that does not have the database's file.
        """
        await asyncio.to_thread(check_reach, self._settings.database_url.get_secret_value())
        await launch(job, self._settings, self._stages, ray.get_runtime_context().current_actor).ping.remote()

    async def is_responsive(self, job: Job) -> bool:
        """Return False where there is no actor, or where its process is stopped or hangs.

        An actor that waits for the database answers. One that is dead or restarts counts as responsive: it holds no
        lock.
        """
        actor = await self._find(job)
        try:
            async with asyncio.timeout(ANSWER_S):
                return actor is not None and await actor.ping.remote() is None
        except TimeoutError:
            return False
        except RayError:
            return True

    async def cancel(self, job: Job) -> None:
        """Ask the job's actor to end the job as cancelled; do not wait for it."""
        if actor := await self._find(job):
            actor.cancel.remote()

    async def give_back(self, job: Job) -> None:
        """Ask the job's actor to give its attempt back and to end; do not wait for it."""
        if actor := await self._find(job):
            remote_method(actor, "give_back").remote()

    async def kill(self, job: Job) -> bool:
        """Kill the job's actor; return False where there is none.

        Its name is free at once. A process that is stopped or hangs is killed by Ray's raylet 5 s later (Ray 2.60,
        measured).
        """
        actor = await self._find(job)
        if actor is not None:
            ray.kill(actor)
        return actor is not None

    async def _find(self, job: Job) -> ActorHandle[Any] | None:
        try:
            return await asyncio.to_thread(ray.get_actor, actor_name(job.job_id, job.run), NAMESPACE)
        except ValueError:
            return None

    async def find_orphans(self, running: set[tuple[str, int]]) -> set[str]:
        """Return the names of job actors of all but these (job_id, run); some may still be sending their job's end."""
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        wanted = {actor_name(job_id, run) for job_id, run in running}
        ours = {actor["name"] for actor in named if actor["namespace"] == NAMESPACE}
        return {name for name in ours - wanted if name.startswith(PREFIX)}

    async def kill_by_name(self, name: str) -> None:
        """Kill an actor that `find_orphans` has found."""
        try:
            ray.kill(await asyncio.to_thread(ray.get_actor, name, NAMESPACE))
        except ValueError:
            return
