"""Job managers without Ray: drivers that are tasks of the test, or stand still, or die."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from serve_app.jobs.job import Attempt, Job
from serve_app.orchestration.attempt import until_stored
from serve_app.orchestration.manager import JobManager
from serve_app.settings import Settings
from tests.support.jobs import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from serve_app.orchestration.opening import Stores

    Behaviour = Callable[[Stores, Attempt], Awaitable[None]]


def settings_in(folder: Path, **limits: Any) -> Settings:
    callbacks = {"origins": ["http://127.0.0.1:*"], "networks": ["127.0.0.0/8"]}
    return Settings(profile="local", state_dir=folder, limits=limits, callbacks=callbacks)


class ScriptedDrivers:
    """In place of `JobActors`: each start counts an attempt and then does what the test says of that job.

    A behaviour that returns is a process that has ended, whatever it did.
    """

    def __init__(self, store: Stores, behaviour: Behaviour) -> None:
        self._store = store
        self._behaviour = behaviour
        self.alive: dict[str, asyncio.Task[None]] = {}
        self.starts: list[str] = []
        self.killed: list[str] = []
        self.hanging: set[str] = set()

    async def fill_spares(self) -> None:
        """There are none."""

    async def exists(self, job: Job) -> bool:
        return job.job_id in self.alive

    async def is_responsive(self, job: Job) -> bool:
        return job.job_id not in self.hanging

    async def start(self, job: Job) -> None:
        self.starts.append(job.job_id)
        task = self.alive[job.job_id] = asyncio.create_task(self._live(job))
        task.add_done_callback(lambda _: self.alive.pop(job.job_id, None))

    async def _live(self, job: Job) -> None:
        begin = partial(self._store.attempts.begin_attempt, job.job_id, job.run, job.token, moment(self._store))
        begun = await until_stored(job.job_id, begin)
        if begun is not None:
            await self._behaviour(self._store, Attempt.of(begun))

    async def give_back(self, job: Job) -> None:
        if task := self.alive.get(job.job_id):
            task.cancel()

    async def cancel(self, job: Job) -> None:
        self.alive[job.job_id].cancel()

    async def kill(self, job: Job) -> bool:
        self.killed.append(job.job_id)
        task = self.alive.pop(job.job_id, None)
        if task is not None:
            task.cancel()
        return task is not None

    async def find_orphans(self, running: Sequence[Job]) -> set[str]:
        return set(self.alive) - {job.job_id for job in running}

    async def kill_by_name(self, name: str) -> None:
        self.alive.pop(name).cancel()


async def _nothing(*_: object) -> list[str]:
    return []


class Call:
    """What a handle's call gives: it goes on until it is cancelled itself, whatever becomes of who awaits it."""

    def __init__(self, work: Any) -> None:
        self._task = asyncio.ensure_future(work)
        self.cancel = self._task.cancel

    def __await__(self) -> Any:
        return asyncio.shield(self._task).__await__()


def called(work: Callable[..., Any]) -> Any:
    """A deployment's method."""
    return SimpleNamespace(remote=lambda *args, **named: Call(work(*args, **named)))


STAGES: Any = SimpleNamespace(
    extractor=SimpleNamespace(
        **dict.fromkeys(("discard", "kept_jobs", "discard_folders"), SimpleNamespace(remote=_nothing))
    )
)


@asynccontextmanager
async def running_manager(settings: Settings, drivers: Any) -> AsyncIterator[JobManager]:
    """A manager whose loop turns until the context ends."""
    manager = JobManager(settings, STAGES, 0.0, drivers)
    try:
        yield manager
    finally:
        await manager._stop()
        await asyncio.gather(manager._loop, *manager._tasks.cancel_all(), return_exceptions=True)
        manager._database.close()


async def until(condition: Callable[[], bool], *, within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
