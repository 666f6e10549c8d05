"""The process of one job: `job:<id>` in the Ray dashboard.

Knows nothing of the work, which is the driver's. Imports little: loading the rest takes a second of a core, and the
requests of others come first, so this process yields before it loads.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import cloudpickle

from serve_app.orchestration import placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.actor import ActorHandle

    from serve_app.jobs.job import Job
    from serve_app.pipeline.pipeline import Stages
    from serve_app.settings import Settings

NAMESPACE = "ml-server"
MANAGER_NAME = "job-manager"
NICENESS = 15
"""Between those that answer requests (0) and those that compute (idle)."""
NEVER_USED = ("pandas", "rich")
"""Serve and httpx do without these where they are not installed; they take a quarter of the driver's start."""


def actor_name(job_id: str, run: int) -> str:
    """What the dashboard shows: `job:<id>`, from the second run on with its number.

    A job_id has been checked against the contract's alphabet, which has no `#`.
    """
    return f"job:{job_id}" if run == 1 else f"job:{job_id}#{run}"


def launch(job: Job, settings: Settings, stages: Stages, manager: ActorHandle[Any]) -> ActorHandle[Any]:
    """The actor of the job's present run: a new one, or the one that is there."""
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


def _show(doing: str) -> None:
    """Put what this driver does into its process' title, which `ps` and the dashboard's page of the cluster show.

    Ray puts its own title back with each call of the actor, so this is to be said again now and then.
    """
    ray._raylet.setproctitle(f"ray::JobActor {doing}")  # type: ignore[attr-defined]  # noqa: SLF001 - Ray's own way


@contextmanager
def _lean_imports() -> Iterator[None]:
    """Import without what the driver never uses, and without the garbage collector, which would find that all stays."""
    left_out = [name for name in NEVER_USED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: an ImportError for those who try
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in left_out:
            del sys.modules[name]


class JobActor:
    """A driver in an actor of its own. It works from the moment it exists; the calls only look in."""

    def __init__(self, job_id: str, run: int, pickled: bytes, manager: ActorHandle[Any]) -> None:
        """`pickled` is settings and stages: Ray would unpickle them, with all that they import, before we can yield."""
        os.nice(NICENESS)
        self._name = actor_name(job_id, run)
        with _lean_imports():
            from serve_app.orchestration.job_runner import JobRunner

            settings, stages = cloudpickle.loads(pickled)
        self._driver = JobRunner(job_id, run, settings, stages, manager, show=_show)

    def __repr__(self) -> str:
        return f"JobActor({self._name})"

    async def ping(self) -> None:
        """Answer, which proves that the actor is there."""

    async def stage_progress(self, step: str, fraction: float) -> None:
        """The extractor's report on its way."""
        self._driver.stage_progress(step, fraction)

    async def leave(self) -> None:
        """Stop the work; the job goes on with another driver, later."""
        self._driver.leave()

    async def cancel(self) -> None:
        """Stop the work; the job ends as cancelled."""
        self._driver.cancel()
