"""The Ray actor of one job, a process of its own: `job:<id>` in the Ray dashboard.

The work is done by the `JobRunner` in it. This module imports little: loading the rest takes a second of a core, and
the process lowers its priority first, so that requests are answered meanwhile.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import cloudpickle

from deployments.extraction.protocol import Part
from serve_app.orchestration import placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.actor import ActorHandle

    from serve_app.jobs.job import Job
    from serve_app.pipeline.stage_client import StageHandles
    from serve_app.settings import Settings

NAMESPACE = "ml-server"
MANAGER_NAME = "job-manager"
NICENESS = 15
"""Between the processes that answer requests (0) and those that compute (idle)."""
NEVER_USED = ("pandas", "rich")
"""Serve and httpx do without these where they are not installed; they would take a quarter of the actor's start."""


def actor_name(job_id: str, run: int) -> str:
    """Return the actor's name: `job:<id>`, from the second run on with `#` and the run's number.

    A job_id has been checked against the contract's alphabet, which has no `#`.
    """
    return f"job:{job_id}" if run == 1 else f"job:{job_id}#{run}"


def launch(job: Job, settings: Settings, stages: StageHandles, manager: ActorHandle[Any]) -> ActorHandle[Any]:
    """Return the actor of the job's present run; create it if there is none."""
    pickled: bytes = cloudpickle.dumps((settings, stages))  # type: ignore[no-untyped-call]
    actor: Any = (
        ray.remote(JobActor)
        .options(
            name=actor_name(job.job_id, job.run),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            scheduling_strategy=placement.strategy(),
            max_concurrency=100,
        )
        .remote(job.job_id, job.run, pickled, manager)
    )
    return cast("ActorHandle[Any]", actor)


def _set_title(doing: str) -> None:
    """Set the title of this process, which `ps` and the dashboard's page of the cluster show.

    Ray sets its own title again with each call of the actor, so this has to be repeated.
    """
    ray._raylet.setproctitle(f"ray::JobActor {doing}")  # type: ignore[attr-defined]  # noqa: SLF001 - Ray's own way


@contextmanager
def _lean_imports() -> Iterator[None]:
    """Hide modules that a job never uses, and stop the garbage collector, which would find nothing to free."""
    left_out = [name for name in NEVER_USED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: importing it raises ImportError
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in left_out:
            del sys.modules[name]


class JobActor:
    """A job runner in an actor of its own. It works from the moment it exists; the calls only control it."""

    def __init__(self, job_id: str, run: int, pickled: bytes, manager: ActorHandle[Any]) -> None:
        """`pickled` is settings and stages: Ray would unpickle, and import, them before the priority is lowered."""
        os.nice(NICENESS)
        self._name = actor_name(job_id, run)
        with _lean_imports():
            from serve_app.orchestration.job_runner import JobRunner

            settings, stages = cloudpickle.loads(pickled)
        self._runner = JobRunner(job_id, run, settings, stages, manager, show=_set_title)

    def __repr__(self) -> str:
        return f"JobActor({self._name})"

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
