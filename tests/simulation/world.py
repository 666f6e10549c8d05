"""One machine with one ML Server on it, all in this process: what production makes of Ray, Serve, /proc and threads.

Production's code runs as it is: manager, job actors and runners, pipeline, extractor, stores, sender, HTTP client,
and the service behind the HTTP routes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import sys
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from deployments import logs
from deployments.extraction.config import ExtractorConfig
from deployments.net import client as net_client
from deployments.transcriber.config import TranscriberConfig
from serve_app.api.service import JobService
from serve_app.orchestration import job_actor, job_runner, manager, manager_client, placement, spare_processes
from serve_app.orchestration.job_actor import MANAGER_NAME
from serve_app.orchestration.manager_client import ManagerClient
from serve_app.orchestration.opening import open_stores
from serve_app.settings import Settings
from serve_app.storage import leases
from serve_app.storage.database import open_database
from serve_app.storage.server_state import note_start
from tests.simulation import database, stages, virtual_time
from tests.simulation.loop import OUTSIDE, Process, VirtualLoop, current
from tests.simulation.network import Network, Receiver
from tests.simulation.simulated_ray import SimulatedRay
from tests.simulation.virtual_time import CLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

RECEIVERS = {"quick": "10.0.0.1", "second": "10.0.0.2", "odd": "10.0.0.3", "dead": "10.0.0.4"}
"""Backends: the first two behave well for most of the time, the others do not."""
ANSWER_S = 5.0
"""A request is answered within this time (the contract)."""
DRAIN_S = 20.0


class Unreachable(Exception):  # noqa: N818 - as a client says it
    """A request got no answer: the server is not there."""


class World:
    """See the module. `limits` and `heartbeat_s` are the server's settings."""

    def __init__(self, seed: int, template: Path, **limits: Any) -> None:
        virtual_time.begin(seed)
        self.random = Random(f"world {seed}")
        self.folder = template.parent
        self.database = database.DatabaseFaults(Random(f"database {seed}"))
        database.FAULTS[:] = [self.database]
        self.loop = VirtualLoop(self.random, self.database.thread_s)
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda *_: None)
        self.ray = SimulatedRay(Random(f"ray {seed}"), self.loop)
        self.receivers = {address: Receiver(name) for name, address in RECEIVERS.items()}
        self.network = Network(Random(f"network {seed}"), self.receivers)
        self.stages = stages.Stages(Random(f"stages {seed}"), self.ray, self.folder)
        stages.STAGES[:] = [self.stages]
        self.settings = self._settings(database.prepared(self.folder, template), limits)
        self.api: Process | None = None
        self.service: JobService | None = None
        self.disturbed: list[tuple[float, float, str]] = []
        """What went wrong, from when to when: the checker asks less of the server meanwhile."""
        self._put_in_place()

    def _settings(self, url: str, limits: dict[str, Any]) -> Settings:
        return Settings(
            profile="local",
            state_dir=self.folder,
            database_url=url,
            limits=limits,
            spare_processes=0,  # simulated_ray.py has its own
            locale="en",
            transcriber=TranscriberConfig(model="base", max_chunk_s=8),
            extractor=ExtractorConfig(
                scratch_url=stages.SCRATCH, temp_dir=self.folder / "tmp", net={"hosts": ["videos.example.com"]}
            ),
            callbacks={"origins": ["http://10.0.0.0:8000", *self._origins()], "networks": ["10.0.0.0/8"]},
        )

    def _origins(self) -> list[str]:
        return [f"http://{address}:8000" for address in self.receivers]

    def _put_in_place(self) -> None:
        for module in (job_actor, job_runner, manager, manager_client, placement, spare_processes):
            module.ray = self.ray
        net_client.httpcore.AnyIOBackend = lambda: self.network
        leases._machine = lambda: "machine"
        leases._process = self._process_in_proc
        leases.os = SimpleNamespace(getpid=lambda: current().pid, kill=self._signal)

    def _found(self, pid: int) -> Process:
        for process in self.ray.processes:
            if process.pid == pid and not process.dead:
                return process
        raise ProcessLookupError(pid)

    def _process_in_proc(self, pid: int) -> tuple[str, str]:
        return ("T" if self._found(pid).stopped else "S"), str(pid)

    def _signal(self, pid: int, _number: int) -> None:
        self._found(pid)

    # the server

    def start(self) -> None:
        """Start the server: the extractor and the API, which makes the manager."""
        self.stages.start(self.settings.extractor)
        self.start_api()

    def start_api(self) -> None:
        """Start an API in place of the present one, as Serve does with a replica that has died, and at a deploy."""
        if self.api is not None:
            self.ray.end(self.api)
        self.api, self.service = self.ray.spawn("Ingress"), None
        self.ray.run_in(self.api, self.loop.call_soon, self._open_api, self.api)

    def _open_api(self, process: Process) -> None:
        try:
            opened = open_database(self.settings)
            client = ManagerClient(self.settings, self.stages.handles(), note_start(opened))
        except Exception:  # noqa: BLE001 - Serve tries again
            self.ray.later(2.0, self._reopen_api, process)
            return
        client.start()
        stores = open_stores(self.settings, opened)
        if process is self.api:
            self.service = JobService(self.settings, stores.jobs, stores.outbox, client)

    def _reopen_api(self, process: Process) -> None:
        if process is self.api:
            self.start_api()

    async def stop_gracefully(self) -> None:
        """Stop as `ml-server up` does at SIGTERM: drain, then end everything."""
        actor = self.ray.actors.get(MANAGER_NAME)
        if actor is not None:
            reply = self.ray.call(actor, "drain", ())
            with suppress(Exception):
                async with asyncio.timeout(DRAIN_S):
                    await reply
        self.stop_at_once()

    def stop_at_once(self) -> None:
        """End all processes, as a power cut does."""
        for actor in list(self.ray.actors.values()):
            self.ray._forget(actor)
        for process in list(self.ray.processes):
            if process is not OUTSIDE:
                self.ray.end(process)
        self.api = self.service = None

    async def request(self, call: Callable[[JobService], Awaitable[Any]]) -> Any:
        """Send a request to the API and return its answer. Raises `ApiError`, or `Unreachable` without an answer."""
        await asyncio.sleep(self.network.latency_s())
        process, service = self.api, self.service
        if process is None or service is None or process.dead:
            raise Unreachable
        answered: asyncio.Future[Any] = self.loop.create_future()
        process.on_death[id(answered)] = lambda: answered.done() or answered.set_exception(Unreachable())

        async def work() -> None:
            try:
                answer = await call(service)
            except Exception as error:  # noqa: BLE001 - goes to the client
                answered.done() or answered.set_exception(error)
            else:
                answered.done() or answered.set_result(answer)

        self.ray.run_in(process, lambda: self.loop.create_task(work()))
        try:
            async with asyncio.timeout(60):
                answer = await answered
        except TimeoutError:
            raise Unreachable from None
        finally:
            process.on_death.pop(id(answered), None)
        await asyncio.sleep(self.network.latency_s())
        return answer

    def disturb(self, kind: str, until: float) -> None:
        self.disturbed.append((CLOCK.now, until, kind))

    # the run

    def run(self, story: Awaitable[None]) -> None:
        """Run `story` to its end."""
        self.loop.run_until_complete(story)

    def close(self) -> None:
        """Forget everything. What the processes would still do at their destruction reaches nothing."""
        database.FAULTS[:] = [_over()]
        self.ray.away = True
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False
        for process in self.ray.processes:
            process.dead = True
            process.on_death.clear()
        self.loop._ready.clear()
        self.loop._scheduled.clear()
        asyncio.set_event_loop(None)
        self.loop.close()
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)


def _over() -> database.DatabaseFaults:
    faults = database.DatabaseFaults(Random(0))
    faults.away = True
    return faults


def _nothing() -> None:
    pass


def prepare(folder: Path) -> Path:
    """Prepare this process for runs in a folder; return the template of their databases."""
    database.install()
    logging.disable(logging.CRITICAL)
    logs.configure = _nothing
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # httpcore looks for it at each request
    sys.unraisablehook = lambda _: None  # coroutines of processes that were killed, at their destruction
    folder.mkdir()
    template = database.make_template(folder, Random(0))
    gc.collect()
    gc.disable()  # a destruction would run code of a process that was killed, at a moment that no seed decides
    gc.freeze()
    return template
