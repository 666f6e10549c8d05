"""The deployment that answers HTTP, and its line to the job manager."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from deployments import logs
from serve_app.api import proxy_guard
from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.exposure import check_bind, check_forwarding, check_token
from serve_app.orchestration import placement
from serve_app.orchestration.job_actor import MANAGER_NAME, NAMESPACE
from serve_app.orchestration.manager import JobManager
from serve_app.orchestration.opening import open_stores
from serve_app.orchestration.renamed_methods import remote_method
from serve_app.pipeline.stage_client import StageHandles
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.opening import open_database

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from fastapi import FastAPI
    from ray.actor import ActorHandle

    from serve_app.settings import Settings

LOOK_EVERY_S = 2.0
ANSWER_S = 20.0
MANAGER_SILENCE_S = 60.0
"""A manager whose loop has not turned for so long is broken; one that does not even answer is killed, for the next."""

log = logs.get_logger("ingress")


class ManagerLine:
    """Keeps a manager of this release alive, passes signals to it, and knows whether it answers."""

    def __init__(self, settings: Settings, stages: StageHandles) -> None:
        self._settings = settings
        self._stages = stages
        self._since = time.time()
        self._manager: ActorHandle[Any] | None = None
        self._asked: ActorHandle[Any] | None = None
        self._failing: tuple[str, ...] = ("job manager",)
        self._tasks: set[asyncio.Task[None]] = set()

    def poke(self) -> None:
        """There is something new in the job table."""
        if self._manager is not None:
            remote_method(self._manager, "wake").remote()

    def discard(self, job_id: str) -> None:
        """A job's files may go."""
        if self._manager is not None:
            self._manager.discard.remote(job_id)

    def failing(self) -> Sequence[str]:
        """The parts that are broken, as of the last look."""
        return self._failing

    def start(self) -> None:
        """Begin to look after the manager."""
        self._spawn(self._watch())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        answered_at = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    self._failing = await self._look()
                answered_at = time.monotonic()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at again
                log.warning("the job manager does not answer", extra={"error": type(error).__name__})
                self._failing = ("job manager",)
                if self._asked is not None and time.monotonic() - answered_at > MANAGER_SILENCE_S:
                    log.warning("the job manager is killed: it hangs")
                    ray.kill(self._asked)
                    answered_at = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> tuple[str, ...]:
        """Find or make the manager. One of an earlier release leaves; jobs that run keep their drivers."""
        manager: Any = await asyncio.to_thread(self._get_or_create)
        identity, since, silent_s = await remote_method(manager, "status").remote()
        if identity != self._settings.identity and since < self._since:
            log.info("the job manager of another release is replaced")
            self._manager = None
            with suppress(RayActorError):
                await remote_method(manager, "step_down").remote()
            manager = await asyncio.to_thread(self._get_or_create)
            _, _, silent_s = await remote_method(manager, "status").remote()
        self._manager = manager
        return ("job manager",) if silent_s > MANAGER_SILENCE_S else ()

    def _get_or_create(self) -> ActorHandle[Any]:
        manager: Any = (
            ray.remote(JobManager)
            .options(
                name=MANAGER_NAME,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                num_cpus=0,
                scheduling_strategy=placement.strategy(),
                max_concurrency=1000,
            )
            .remote(self._settings, self._stages, self._since)
        )
        self._asked = manager
        return cast("ActorHandle[Any]", manager)


def check_exposure(settings: Settings) -> None:
    """See to it that Serve's proxies are open to nobody whom the settings do not let in.

    Which address they listen on is no argument of the app; Serve's controller knows, once Serve runs.

    Raises:
        ExposedError: They are.
    """
    if ray.is_initialized():
        check_token(settings, os.environ)
    check_forwarding(os.environ)
    check_bind(_listening_on(), settings.auth)


def _listening_on() -> str | None:
    """The address of Serve's proxies; None where there are none, or where Serve does not run yet."""
    if not ray.is_initialized():
        return None
    try:
        controller: Any = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return None
    host: str | None = ray.get(controller.get_http_config.remote()).host
    return host


class _Ingress:
    """POST a job, look it up, cancel it, tell it again."""

    def __init__(self, settings: Settings, **stages: Any) -> None:
        logs.configure()
        placement.check_reach(settings.database_url.get_secret_value())  # again: nodes may have joined since the build
        if os.environ.get(proxy_guard.VARIABLE) not in proxy_guard.IMPORT_PATHS:
            log.warning("%s is not set: Serve's proxies read bodies of any size", proxy_guard.VARIABLE)
        check_exposure(settings)  # again: `serve run` builds the app before there is a proxy
        self._settings = settings
        self._line = ManagerLine(settings, StageHandles(**stages))
        self._line.start()
        database = open_database(settings)
        stores = open_stores(settings, database)
        self._keys = KeyStore(database)
        self._service = JobService(settings, stores.jobs, stores.outbox, self._line)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self._settings, self._service, self._keys)

    def __repr__(self) -> str:
        return "Ingress"


Ingress = serve.deployment(name="Ingress")(serve.ingress()(_Ingress))
