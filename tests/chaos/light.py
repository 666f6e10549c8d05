"""The server's parts without Ray, each a process that can be killed and started again in a tenth of a second.

`drive` is the real driver (attempts, pipeline, teller, end, first try of the callback) over stages that answer at once,
then the manager's part in delivery; `serve` is the real HTTP edge. Both are forked by a process that has imported
everything and has one thread (`nursery`): that is what makes a start cheap.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import uvicorn

from deployments import logs
from deployments.extraction.protocol import Part
from deployments.net.client import CallbackClient
from deployments.types import SAMPLE_RATE_HZ, AudioInfo
from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.callbacks.sender import Sender
from serve_app.orchestration import job_runner as driver_module
from serve_app.orchestration.job_runner import JobRunner
from serve_app.orchestration.opening import open_stores
from serve_app.settings import Settings
from serve_app.storage import outbox as outbox_module
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.database import open_database
from serve_app.testing import FakeHandle, fake_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.context import ForkServerContext

    from serve_app.jobs.job import Job
    from serve_app.orchestration.opening import Stores
    from serve_app.pipeline.stage_client import StageHandles
    from tests.chaos.fuse import Fuse

AUDIO_S = 8.0
CLAIM_S = 0.3
"""Instead of half a minute, after which a dead sender's callback is another's."""
MANY = 100_000
LOCAL: dict[str, Any] = {
    "profile": "local",
    "locale": "en",
    "extractor": {"net": {"schemes": ["http"], "ports": "*", "networks": ["127.0.0.0/8"]}},
    "callbacks": {"origins": ["http://127.0.0.1:*"], "networks": ["127.0.0.0/8"]},
    "transcriber": {"engine": "whisperx"},
    "limits": {"running_jobs": MANY, "queued_jobs": MANY},
}
"""Settings of a server on the loopback whose queue is never full, with every stage in its graph."""


def nursery() -> ForkServerContext:
    """Where these processes come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def settings_of(options: Mapping[str, Any]) -> Settings:
    """`LOCAL` with `options`."""
    return Settings(**{**LOCAL, **options})


@contextmanager
def opened(options: Mapping[str, Any]) -> Iterator[Stores]:
    """The stores of these processes, for whoever looks at them from outside."""
    settings = settings_of(options)
    database = open_database(settings)
    try:
        yield open_stores(settings, database)
    finally:
        database.close()


def serve(options: Mapping[str, Any], port: int) -> None:
    """The HTTP edge, until it is killed. The process's whole life."""
    settings = settings_of(options)
    _log_to_file(settings)
    database = open_database(settings)
    stores = open_stores(settings, database)
    app = create_api(settings, JobService(settings, stores.jobs, stores.outbox, Silent()), KeyStore(database))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", ws="none")


def _log_to_file(settings: Settings) -> None:
    """As `up` has it; Ray Serve, imported, would write to the terminal."""
    settings.prepare()
    os.environ[logs.LOG_FILE_VARIABLE] = str(settings.state_dir / "log.jsonl")
    logging.getLogger(logs.ROOT).handlers.clear()
    logs.configure()


class Silent:
    """Whoever is told something and does nothing: no manager, no other parts that could fail."""

    def __getattr__(self, _name: str) -> Silent:
        return self

    def __call__(self, *_: object, **__: object) -> Silent:
        return self

    def __iter__(self) -> Any:
        return iter(())


def drive(options: Mapping[str, Any], job_ids: Sequence[str], fuse: Fuse | None = None) -> None:
    """Run admitted jobs to their ends and tell these. The process's whole life."""
    assert outbox_module.CLAIM_S
    outbox_module.CLAIM_S = CLAIM_S
    settings = settings_of(options)
    _log_to_file(settings)
    asyncio.run(_drive(settings, job_ids, fuse))
    if fuse is not None:
        fuse.wait()


async def _drive(settings: Settings, job_ids: Sequence[str], fuse: Fuse | None) -> None:
    reach: Callable[[str], None] = fuse.reach if fuse else lambda _edge: None
    reach("accepted")
    store = open_stores(settings, open_database(settings))
    outbox = store.outbox
    await asyncio.gather(
        *(_one(settings, job, reach) for job in store.queue.fetch_running_jobs() if job.job_id in job_ids)
    )
    async with CallbackClient(settings.callbacks) as client:
        sender = Sender(client, outbox)
        while pending := [job_id for job_id in job_ids if outbox.status(job_id).state == "pending"]:
            for callback_id, job_id, _ in outbox.due(MANY):
                if job_id in pending:
                    await sender.deliver(callback_id)
            await asyncio.sleep(0.02)


async def _one(settings: Settings, job: Job, reach: Callable[[str], None]) -> None:
    ray = NoRay()
    driver_module.ray = ray
    driver = JobRunner(
        *(job.job_id, job.run, job.token), settings=settings, stages=stages(reach, ray), manager=Silent()
    )
    ray.driver = driver
    finish = driver._attempts.finish_job

    def finished(*args: Any, **fields: Any) -> Any:
        ending = finish(*args, **fields)
        reach("committed")
        return ending

    driver._attempts.finish_job = finished
    await driver._task


class NoRay:
    """What a driver asks of Ray: who it is, and its own end, which here is the end of its task."""

    driver: Any = None

    def get_runtime_context(self) -> NoRay:
        return self

    @property
    def current_actor(self) -> NoRay:
        return self

    def kill(self, _actor: object) -> None:
        pass

    @property
    def report_progress(self) -> Any:
        return SimpleNamespace(remote=self.driver.report_progress)


def stages(reach: Callable[[str], None], ray: NoRay) -> StageHandles:
    """All stages, whose last answers are edges."""

    def prepare(*_: object) -> AudioInfo:
        ray.driver.report_progress(Part.DOWNLOAD, 0.5)
        reach("downloading")
        ray.driver.report_progress(Part.DOWNLOAD, 1.0)
        reach("downloaded")
        ray.driver.report_progress(Part.EXTRACT, 1.0)
        return AudioInfo(duration_s=AUDIO_S, samples=len(AUDIO), sha256="0" * 64)

    def answered(name: str) -> None:
        reach(EDGE_OF.get(name, ""))

    methods = {"prepare": prepare, "load": lambda *_: AUDIO, "discard": lambda *_: None}
    return fake_stages(extractor=FakeHandle(methods, answered=answered), answered=answered)


EDGE_OF = {
    "load": "extracted",
    "detect": "detected",
    "transcribe": "transcribed",
    "align": "aligned",
    "cluster": "diarized",
    "measure": "prosody",
    "analyze": "emotion",
}
"""The edge of `fuse.EDGES` that a stage's method reaches with its answer."""
AUDIO = np.random.default_rng(1).integers(-3000, 3000, int(AUDIO_S * SAMPLE_RATE_HZ), np.int16)
