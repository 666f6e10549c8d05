"""The Ray actor of one job, `job:<token>` in the Ray dashboard, and how the manager finds, starts and ends it.

The actor is a process of its own; the work is done by the `JobRunner` in it. This module imports little: loading the
rest takes a second of a core, and the process lowers its priority first, so that requests are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError

from deployments.extraction.protocol import Part
from deployments.replica import FAIR, PRIORITY_VARIABLE
from serve_app.jobs.states import ACTOR_PREFIX
from serve_app.lean_imports import lean_imports
from serve_app.orchestration import placement
from serve_app.orchestration.spare_processes import SpareProcesses, environment, release_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ray.actor import ActorHandle

    from serve_app.jobs.job import Job
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

NAMESPACE = "ml-server"
MANAGER_NAME = "job-manager"
NAME_BEFORE = {"wake": "poke", "status": "look", "step_down": "leave", "give_back": "leave"}
"""What the release before calls methods of the manager and of job actors. Goes with the release after this one."""
ANSWER_S = 10.0
"""How long an actor whose process runs may take to answer a ping."""
NICENESS, LOADING_NICENESS = 5, 15
"""Between the processes that answer requests (0) and those that compute (idle). Not 15 for the work: one that waits for
a core while it holds the writers' lock of SQLite keeps requests waiting, too."""
FAIR_NICENESS, FAIR_LOADING_NICENESS = 0, 5
"""The same where those that compute have an ordinary priority."""
LOADED_AHEAD = (
    "serve_app.orchestration.job_runner",
    "serve_app.settings",
    "sqlite3",
    "anyio._backends._asyncio",
    "ray.serve._private.controller",
)
"""The job runner, and what else a job would have to wait for: its settings' classes, and what SQLAlchemy, httpx and
Serve import when they are first used."""


def remote_method(actor: Any, name: str) -> Any:
    """Return an actor's method `name`, or what the release before called it where the actor does not have that.

    While `serve deploy` runs, both releases call each other: see also the aliases in `JobManager` and `JobActor`.
    """
    try:
        return getattr(actor, name)
    except AttributeError:
        return getattr(actor, NAME_BEFORE[name])


def prepare_process() -> None:
    """Lower the priority, and import what a job actor needs: Ray calls this in a process before it has an actor.

    The import has a thread of its own, with a lower priority (niceness is a thread's on Linux, and cannot be taken
    back). Raises nothing, since Ray would end the process and start the next; the process's log has what failed.
    """
    fair = os.environ.get(PRIORITY_VARIABLE) == FAIR
    niceness, at_first = (FAIR_NICENESS, FAIR_LOADING_NICENESS) if fair else (NICENESS, LOADING_NICENESS)
    _be_nice(niceness)
    loading = threading.Thread(target=_load, args=(at_first - niceness,), name="load")
    loading.start()
    loading.join()


def _be_nice(steps: int) -> None:
    with suppress(OSError):  # a sandbox may forbid it
        os.nice(steps)


def _load(steps: int) -> None:
    _be_nice(steps)
    try:
        with lean_imports():
            for name in LOADED_AHEAD:
                import_module(name)
        import_module("deployments.net.client").tls_context(None)
    except Exception:  # noqa: BLE001
        traceback.print_exc()


class JobActor:
    """A job runner in an actor of its own. It works from the moment it exists; the calls only control it."""

    def __init__(self, job_id: str, run: int, token: str, pickled: bytes, manager: ActorHandle[Any]) -> None:
        """`pickled` is settings and stages, which this module does not import."""
        from serve_app.orchestration.job_runner import JobRunner

        self._shown = job_id if run == 1 else f"{job_id}#{run}"
        settings, stages = cloudpickle.loads(pickled)
        self._runner = JobRunner(job_id, run, token, settings=settings, stages=stages, manager=manager)

    def __repr__(self) -> str:
        """Return what Ray's dashboard shows of the actor, and its metrics do not: which job's it is."""
        return f"JobActor({self._shown})"

    async def ping(self) -> None:
        """Return, which shows that the actor's process runs."""

    async def report_progress(self, part: str, fraction: float) -> None:
        """Take the extractor's report that `fraction` (0-1) of `part`, a value of `Part`, is done."""
        self._runner.report_progress(Part(part), fraction)

    async def give_back(self) -> None:
        """Stop the work, so that the job goes on later with another actor."""
        self._runner.give_back()

    async def cancel(self) -> None:
        """Stop the work and end the job as cancelled."""
        self._runner.cancel()

    leave = give_back  # what a manager of the release before calls; to be removed with the release after this one
    stage_progress = report_progress  # the same for an extractor of the release before


class JobActors:
    """Find, start, cancel and kill job actors. Inside the manager's actor only: job actors get a handle of it."""

    def __init__(self, settings: Settings, stages: StageHandles) -> None:
        self._settings = settings
        self._stages = stages
        self._actor_class = ray.remote(JobActor)  # one for all jobs: Ray exports every new one to the cluster
        self._release = release_of(settings)
        self._spares = SpareProcesses(settings.spare_processes, self._release)

    async def fill_spares(self) -> None:
        """Have processes started for jobs to come, as many as are missing."""
        await asyncio.to_thread(self._spares.fill)

    async def exists(self, job: Job) -> bool:
        """Return whether Ray knows an actor of the job's present run, even one whose process it is restarting."""
        return await self._find(job) is not None

    async def start(self, job: Job) -> None:
        """Create the job's actor and wait until it answers. Raises `DatabaseOutOfReachError`."""
        await asyncio.to_thread(placement.check_reach, self._settings.database_url.get_secret_value())
        here = await asyncio.to_thread(self._node_with_spare)
        pickled: bytes = cloudpickle.dumps((self._settings, self._stages))  # type: ignore[no-untyped-call]
        actor: Any = self._actor_class.options(
            name=job.actor_name,
            namespace=NAMESPACE,
            max_concurrency=100,
            runtime_env=environment(self._release),
            **placement.detached(here),
        ).remote(job.job_id, job.run, job.token, pickled, ray.get_runtime_context().current_actor)
        await actor.ping.remote()

    def _node_with_spare(self) -> str | None:
        """Return the manager's node if a spare process is there, and no more job actors than its share; else None."""
        idle, in_use = self._spares.count()
        if not idle or in_use >= self._settings.limits.running_jobs / placement.nodes_with_cores():
            return None
        self._spares.was_used()
        here: str = ray.get_runtime_context().get_node_id()
        return here

    async def is_responsive(self, job: Job) -> bool:
        """Return False where there is no actor, or its process hangs. One that is dead or restarts holds no lock."""
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
        """Kill the job's actor; return False where there is none."""
        return await self.kill_by_name(job.actor_name)

    async def find_orphans(self, running: Iterable[Job]) -> set[str]:
        """Return the names of all job actors but those of these jobs; some may still be sending their job's end."""
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        wanted = {job.actor_name for job in running}
        ours = {actor["name"] for actor in named if actor["namespace"] == NAMESPACE}
        return {name for name in ours - wanted if name.startswith(ACTOR_PREFIX)}

    async def kill_by_name(self, name: str) -> bool:
        """Kill an actor; return False where there is none of this name, which is free again at once.

        A process that is stopped or hangs is killed by Ray's raylet 5 s later (Ray 2.60, measured).
        """
        try:
            ray.kill(await asyncio.to_thread(ray.get_actor, name, NAMESPACE))
        except ValueError:
            return False
        return True

    async def _find(self, job: Job) -> ActorHandle[Any] | None:
        try:
            return await asyncio.to_thread(ray.get_actor, job.actor_name, NAMESPACE)
        except ValueError:
            return None
