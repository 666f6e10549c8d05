"""The manager's hands on audio, without Ray: fetched ahead of its turn, and swept up after its job."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from deployments.errors import DownloadError, OutOfResourcesError
from deployments.extraction.scratch import Scratch, folder_name
from deployments.types import SAMPLE_RATE_HZ
from serve_app.jobs.job import JobOptions, Outcome
from serve_app.jobs.states import JobState
from serve_app.orchestration import job_supervisor, manager, prefetcher
from serve_app.orchestration.opening import open_stores
from serve_app.settings import Settings
from serve_app.storage.database import open_database
from tests.support import managers
from tests.support.extractors import extractor_in
from tests.support.jobs import new_job
from tests.support.managers import ScriptedDrivers, called, running_manager, settings_in, until
from tests.support.servers import serving, status, whole
from tests.support.sounds import noise, written

DONE = Outcome(result=b"{}", duration_s=1.0, processing_s=1.0)
SILENCE = np.zeros(16, np.int16)
LIFE_S = 5.0
"""Of a presigned URL."""


class Extractor:
    """Fetches by URLs that expire, and keeps audio in a real folder. `faults`: how fetches of a job end."""

    def __init__(self, folder) -> None:
        self.scratch = Scratch(str(folder))
        self.expires: dict[str, float] = {}
        self.fetched: list[str] = []
        self.saved: list[str] = []
        self.selections: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[Exception]] = {}
        self.takes_s = 0.01
        self.prepare = called(self._prepare)
        self.discard = called(self._discard)
        self.kept_jobs = called(self._kept_jobs)
        self.discard_folders = called(self._discard_folders)

    async def _prepare(self, job_id, run, _url, _report, _language="auto", **selection):
        self.selections[job_id] = selection
        if self.scratch.info(job_id, run) is not None:
            return
        self.fetched.append(job_id)
        if time.time() > self.expires.get(job_id, 2e9):
            raise DownloadError(reason="expired")
        await asyncio.sleep(self.takes_s)
        if faults := self.faults.get(job_id):
            raise faults.pop(0)
        self.saved.append(job_id)
        self.scratch.save(job_id, run, SILENCE, duration_s=1.0, warnings=())

    async def _discard(self, job_id, run=None):
        self.scratch.discard(job_id, run)

    async def _kept_jobs(self):
        return self.scratch.folders()

    async def _discard_folders(self, names):
        self.scratch.discard_folders(names)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for module, name, value in (
        (manager, "TURN_S", 0.05),
        (manager, "PRUNE_EVERY_S", 0.1),
        (prefetcher, "RETRY_WAIT_S", 0.05),
        (job_supervisor, "STARTS_AT_ONCE", 4),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(prefetcher.Prefetcher, "_free_bytes", lambda _: 10**12)


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path, running_jobs=1)


@pytest.fixture
def extractor(settings, monkeypatch):
    extractor = Extractor(settings.state_dir / "scratch")
    monkeypatch.setattr(managers, "STAGES", SimpleNamespace(extractor=extractor))
    return extractor


def posted(store, extractor, job_id: str, life_s: float = 3600.0) -> str:
    """A job that waits, with a URL that lives so long."""
    extractor.expires[job_id] = time.time() + life_s
    store.jobs.submit_job(
        new_job(job_id, video_url=f"https://v/{job_id}.mp4", video_expires_at=extractor.expires[job_id])
    )
    return job_id


class Works:
    """A driver that needs the audio first, and ends its job when it may."""

    def __init__(self, extractor) -> None:
        self.may_end = asyncio.Event()
        self._extractor = extractor

    async def __call__(self, store, attempt):
        try:
            await self._extractor.prepare.remote(attempt.job_id, attempt.token, "", None)
            await self.may_end.wait()
            outcome = DONE
        except DownloadError as error:
            outcome = Outcome(error_code=error.code, error_message="no")
        await asyncio.to_thread(store.attempts.finish_job, attempt, outcome)


async def test_d13_a_url_does_not_expire_in_the_queue(settings, store, extractor):
    """D13: the first job takes longer than all URLs live; the audio is fetched meanwhile, and all twelve complete."""
    ids = [posted(store, extractor, f"job-{number:02}", LIFE_S) for number in range(12)]
    works = Works(extractor)
    async with running_manager(settings, ScriptedDrivers(store, works)):
        await until(lambda: time.time() > max(extractor.expires.values()))
        assert store.jobs.count_jobs().queued == 11
        works.may_end.set()
        await until(lambda: all(store.jobs.fetch_job(job_id).state.ended for job_id in ids))
    assert [store.jobs.fetch_job(job_id).state for job_id in ids] == [JobState.COMPLETED] * 12
    assert sorted(extractor.fetched) == ids


async def test_d13_the_real_extractor_needs_no_url_in_its_turn(settings, store, monkeypatch, tmp_path):
    """D13: videos are downloaded and decoded ahead, then their server refuses every URL: all jobs have their sound."""
    real = extractor_in(settings.state_dir, monkeypatch)
    handle = SimpleNamespace(
        prepare=called(real.prepare),
        discard=called(partial(asyncio.to_thread, real.discard)),
        kept_jobs=called(partial(asyncio.to_thread, real.kept_jobs)),
        discard_folders=called(partial(asyncio.to_thread, real.discard_folders)),
    )
    monkeypatch.setattr(managers, "STAGES", SimpleNamespace(extractor=handle))
    seconds = {"runs": 1.0, "a": 1.25, "b": 1.5, "c": 1.75}
    videos = {f"/{job_id}": written(tmp_path / f"{job_id}.wav", noise(s)).read_bytes() for job_id, s in seconds.items()}
    expired, may_end = asyncio.Event(), asyncio.Event()
    heard: dict[str, int] = {}

    async def signed(request, writer):
        await (status(403) if expired.is_set() else whole(videos[request.target]))(request, writer)

    async def work(store, attempt):
        job = store.jobs.fetch_job(attempt.job_id)
        await handle.prepare.remote(job.job_id, job.run_id, job.video_url, None)
        heard[job.job_id] = len(real.load(job.job_id, job.run_id))
        await may_end.wait()
        await asyncio.to_thread(store.attempts.finish_job, attempt, DONE)

    async with serving(signed) as server:
        for job_id in seconds:
            store.jobs.submit_job(new_job(job_id, video_url=server.url(f"/{job_id}")))
        async with running_manager(settings, ScriptedDrivers(store, work)):
            await until(
                lambda: all(store.jobs.fetch_job(job_id).prefetch == "done" for job_id in "abc") and "runs" in heard
            )
            expired.set()
            may_end.set()
            await until(lambda: all(store.jobs.fetch_job(job_id).state.ended for job_id in seconds))
        assert len(server.requests) == len(seconds)
    assert {store.jobs.fetch_job(job_id).state for job_id in seconds} == {JobState.COMPLETED}
    assert heard == {job_id: round(s * SAMPLE_RATE_HZ) for job_id, s in seconds.items()}


async def test_d13_least_time_left_first_and_bounded_by_disk(settings, store, extractor, monkeypatch):
    """D13: nothing is fetched ahead while the disk is short; then, two at a time, in the order in which URLs expire."""
    free = [0]
    monkeypatch.setattr(prefetcher.Prefetcher, "_free_bytes", lambda _: free[0])
    posted(store, extractor, "runs")
    for number, life_s in enumerate((300, 100, 400, 200)):
        posted(store, extractor, f"{life_s}-{number}", life_s)
    works = Works(extractor)
    async with running_manager(settings, ScriptedDrivers(store, works)) as running:
        await until(lambda: extractor.fetched == ["runs"])
        turned = running._turned_at
        await until(lambda: running._turned_at > turned + 0.2)
        assert extractor.fetched == ["runs"]
        free[0] = settings.limits.prefetch_bytes
        await until(lambda: len(extractor.scratch.folders()) == 5)
    assert [job_id.partition("-")[0] for job_id in extractor.fetched] == ["runs", "100", "200", "300", "400"]


@pytest.mark.parametrize(
    ("faults", "fetches"),
    [
        ([RayActorError(), OutOfResourcesError()], 3),
        ([RayActorError()] * 9, 3),
        ([DownloadError(reason="expired")] * 9, 1),
    ],
    ids=["passing", "poison", "the video's own"],
)
async def test_d13_what_is_no_fault_of_the_videos_is_tried_again(settings, store, extractor, faults, fetches):
    """D13: a replica that died, a disk that was full: again before the URL expires, thrice at most; a 404 once."""
    posted(store, extractor, "runs")
    posted(store, extractor, "waits")
    extractor.faults["waits"] = list(faults)
    works = Works(extractor)
    async with running_manager(settings, ScriptedDrivers(store, works)):
        await until(lambda: store.jobs.fetch_job("waits").prefetch in {"done", "failed"})
    assert extractor.fetched.count("waits") == fetches
    assert store.jobs.fetch_job("waits").prefetch == ("done" if len(faults) < 3 else "failed")


async def test_what_is_fetched_ahead_is_what_the_job_chose(settings, store, extractor):
    """The track, the part and the channels; a job that chose nothing calls as it always did."""
    chosen = {"audio_track": 2, "channels": "separate", "start_s": 1.5, "end_s": 9.0}
    posted(store, extractor, "runs")
    posted(store, extractor, "plain")
    store.jobs.submit_job(new_job("chosen", options=JobOptions(**chosen)))
    async with running_manager(settings, ScriptedDrivers(store, Works(extractor))):
        await until(lambda: len(extractor.saved) == 3)
    assert (extractor.selections["plain"], extractor.selections["chosen"]) == ({}, chosen)


async def test_d13_a_job_that_comes_to_its_turn_while_it_is_fetched(settings, store, extractor):
    """D13: its URL expires meanwhile, so that nobody else could fetch it: its driver waits for the fetch."""
    posted(store, extractor, "runs")
    extractor.takes_s = 0.0
    works = Works(extractor)
    drivers = ScriptedDrivers(store, works)
    async with running_manager(settings, drivers):
        await until(lambda: extractor.scratch.folders() == sorted(map(folder_name, ["runs"])))
        extractor.takes_s = 1.5
        posted(store, extractor, "waits", 1.0)
        await until(lambda: "waits" in extractor.fetched)
        works.may_end.set()
        await until(lambda: store.jobs.fetch_job("waits").state is JobState.RUNNING)
        assert drivers.starts == ["runs"]
        await until(lambda: store.jobs.fetch_job("waits").state.ended)
    assert store.jobs.fetch_job("waits").state is JobState.COMPLETED
    assert extractor.fetched == ["runs", "waits"]


async def test_d12_a_cancelled_fetch_stops_and_leaves_nothing(settings, store, extractor):
    """D12: a job that is cancelled while it is fetched ahead: the download stops, nothing is kept."""
    posted(store, extractor, "runs")
    async with running_manager(settings, ScriptedDrivers(store, Works(extractor))) as running:
        await until(lambda: extractor.scratch.folders() == sorted(map(folder_name, ["runs"])))
        extractor.takes_s = 1.0
        posted(store, extractor, "waits")
        await until(lambda: "waits" in extractor.fetched)
        store.jobs.cancel_job("waits", Outcome(error_code="CANCELLED", error_message="no"))
        await running.discard("waits")
        await asyncio.sleep(1.2)
        assert extractor.saved == ["runs"]
        assert extractor.scratch.folders() == [folder_name("runs")]


async def test_d12_orphans_are_swept_up_and_old_jobs_pruned(tmp_path, extractor):
    """D12: audio of ended and unknown jobs goes, of others stays; ended jobs are kept as long as the settings say."""
    settings = Settings(profile="local", state_dir=tmp_path, limits={"running_jobs": 1}, retention_days=2.0 / 86_400)
    database = open_database(settings)
    store = open_stores(settings, database)
    for job_id in ("ended", "runs", "waits"):
        posted(store, extractor, job_id)
    for job_id in ("ended", "runs", "waits", "unknown"):
        extractor.scratch.save(job_id, "0", SILENCE, duration_s=1.0, warnings=())
        extractor.scratch.save(job_id, 1, SILENCE, duration_s=1.0, warnings=())  # as the release before did
    (tmp_path / "scratch" / folder_name("unknown") / "0.npy.0123.tmp").write_bytes(b"half")
    left = sorted(name for job_id in ("runs", "waits") for name in (job_id, folder_name(job_id)))
    ended_at = time.time()
    store.jobs.cancel_job("ended", Outcome(error_code="CANCELLED", error_message="no"))
    works = Works(extractor)
    async with running_manager(settings, ScriptedDrivers(store, works)):
        await until(lambda: extractor.scratch.folders() == left)
        await until(lambda: store.jobs.fetch_job("ended") is None)
        assert time.time() - ended_at > 2.0
        assert store.jobs.fetch_job("runs") is not None
        works.may_end.set()
        await until(lambda: extractor.scratch.folders() == [])
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []
    database.close()
