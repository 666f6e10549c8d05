"""D4: a run is itself: what belongs to a deleted job is nothing to the next job of its name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from deployments.extraction.scratch import folder_name
from serve_app.jobs.job import Attempt, Outcome, Prefetch
from serve_app.jobs.progress import Progress
from serve_app.jobs.stages import Stage
from serve_app.jobs.states import JobState
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from serve_app.storage.leases import Lease
from serve_app.storage.server_state import set_draining
from tests.support.clips import GOOD, make
from tests.support.extractors import extractor_in
from tests.support.jobs import BROKEN, DONE, new_job, started
from tests.support.servers import serving, whole
from tests.support.stores import stores

if TYPE_CHECKING:
    from pathlib import Path

HALF = Progress(percent=50, stage=Stage.DIARIZATION)


@pytest.fixture
def store(database):
    return stores(database, queue_limit=10, running_limit=10)


@pytest.fixture
def again(store):
    """The attempt of a job that was cancelled and deleted, and that of its successor; both have the same numbers."""
    old = started(store, "a")
    store.jobs.cancel_job("a", BROKEN)
    assert store.attempts.finish_job(old, BROKEN)
    assert store.jobs.delete_job("a")
    new = started(store, "a", video_url="https://v/2.mp4")
    assert (old.run, old.number) == (new.run, new.number) == (1, 1)
    return old, new


def test_d4_a_zombie_of_a_deleted_job_writes_nothing(store, database, again):
    """D4: it was cut off from Ray and not from the database: its end, progress, beats and checkpoints are nobody's."""
    old, new = again
    assert store.attempts.finish_job(old, DONE) is None
    assert store.attempts.save_progress(old, HALF, spent_s=1.0) is None
    assert not store.attempts.beat(old, spent_s=1.0)
    assert not store.attempts.give_back(old, spent_s=1.0)
    assert not Checkpoints(database).save(old, "transcription", b"of another video")
    assert store.attempts.begin_attempt("a", old.run, old.token, 1.0) is None
    job = store.jobs.fetch_job("a")
    assert (job.state, job.progress, job.spent_s, job.beats) == (JobState.RUNNING, 0, 0.0, 0)
    assert store.attempts.finish_job(new, DONE) is not None


def test_d4_a_fetch_of_a_deleted_job_is_nobodys(store, again):
    """D13: that it has ended says nothing of the new job's audio."""
    store.jobs.submit_job(new_job("b"))
    old = store.jobs.fetch_job("b")
    store.jobs.cancel_job("b", BROKEN)
    store.jobs.delete_job("b")
    store.jobs.submit_job(new_job("b"))
    store.queue.set_prefetch(old, Prefetch.DONE)
    assert store.jobs.fetch_job("b").prefetch is Prefetch.NONE


def test_each_run_has_a_token_and_an_actor_of_its_own(store):
    """Names of actors tell no job, and two runs share none; a run of the release before has its old name."""
    tokens = set()
    for _ in range(3):
        attempt = started(store, "patient-kim")
        job = store.jobs.fetch_job("patient-kim")
        tokens.add(job.token)
        assert "kim" not in job.actor_name
        assert Attempt.of(job) == attempt
        store.attempts.finish_job(attempt, BROKEN)
    assert len(tokens) == 3
    assert all(len(token) == 16 for token in tokens)


def test_jobs_of_one_spelling_have_folders_of_their_own():
    """Where upper and lower case are the same to the disk; and a long name of any characters fits."""
    assert folder_name("ABC").lower() != folder_name("abc").lower()
    assert {len(folder_name(job_id)) for job_id in ("a", "A:" * 64)} == {32}


async def test_d4_a_download_of_a_deleted_job_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: its actor was killed, the extractor still loads the old video: the new job's is loaded beside it."""
    extractor: Any = extractor_in(tmp_path, monkeypatch)
    video = make(tmp_path / "a.mp4", GOOD["aac.mp4"]).read_bytes()
    released = asyncio.Event()

    async def waits(request: Any, writer: Any) -> None:
        await released.wait()
        await whole(video)(request, writer)

    async with serving(waits) as old, serving(whole(video)) as new:
        zombie = asyncio.create_task(extractor.prepare("a", "0" * 16, old.url()))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(30):
            await extractor.prepare("a", "1" * 16, new.url())
        released.set()
        await zombie
    extractor.discard("a", "0" * 16)
    assert len(extractor.load("a", "1" * 16)) > 0
    assert extractor.kept_jobs() == [folder_name("a")]
    extractor.discard_folders(extractor.kept_jobs())
    assert extractor.kept_jobs() == []


def test_d7_only_the_manager_that_leads_ends_or_begins_a_drain(store, database):
    """D7: one that has lost its lease sets no flag that nobody would remove: POSTs would get 503 for ever."""
    leads, lost = Lease(database, "job-manager"), Lease(database, "job-manager")
    assert leads.hold()
    assert not set_draining(database, draining=True, lease=lost)
    assert not store.jobs.is_draining()
    assert set_draining(database, draining=True, lease=leads)
    assert not set_draining(database, draining=False, lease=lost)
    assert store.jobs.is_draining()
    assert set_draining(database, draining=False, lease=leads)
    assert not store.jobs.is_draining()


def test_what_was_deleted_is_in_no_file_of_the_database(sqlite_url, tmp_path):
    """SQLite keeps pages in its log while connections are open; after a DELETE none of the transcript is there."""
    database = Database(sqlite_url)
    database.create()
    store = stores(database, queue_limit=10, running_limit=10)
    secret = "그 환자의 말".encode()
    for job_id in ("a", "b"):
        attempt = started(store, job_id, video_url="https://v/1.mp4?X-Amz-Signature=secretsignature")
        body = b'{"text":"' + secret + b'","segments":[]}'
        store.attempts.finish_job(attempt, Outcome(result=body, duration_s=1.0, processing_s=1.0))
        assert store.jobs.delete_job(job_id)
        files = [path for path in tmp_path.rglob("*.db*") if path.is_file()]
        assert files
        for path in files:
            assert secret not in path.read_bytes(), path
            assert b"secretsignature" not in path.read_bytes(), path
    database.close()
