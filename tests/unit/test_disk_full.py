"""A disk that is full, or fails, at any write: an error of the contract, nothing half, and all goes on afterwards."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
from sqlalchemy.exc import SQLAlchemyError

from deployments.errors import ModelLoadError, OutOfResourcesError
from deployments.extraction.protocol import Decoded
from deployments.models import lock as locks
from deployments.models import packages
from deployments.models.config import ModelsConfig
from deployments.models.digests import MEMORY, Digests
from deployments.models.fetch import fetch
from deployments.models.lock import Lock, LockedModel
from deployments.models.names import Wanted
from deployments.models.store import ModelState
from serve_app.jobs.job import CallbackState, Outcome
from serve_app.jobs.states import JobState
from serve_app.storage import database as database_module
from serve_app.storage.database import Database
from tests.support import model_hub
from tests.support.disks import PAGE_BYTES, failing_disk, filled_up, small_disk
from tests.support.extractors import extractor_in
from tests.support.jobs import CALLBACK_URL, new_job, started
from tests.support.model_hub import FakeHub
from tests.support.servers import serving, whole
from tests.support.sources import SECRET
from tests.support.stores import stores
from tests.support.wheels import copying_pip, in_two_wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AUDIO = np.arange(20_000, dtype=np.int16)
VIDEO = b"a video" * 1000
WHISPER = Wanted(kind="asr", name=model_hub.REPOSITORY)
Answer = TypeVar("Answer")
ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO]


@pytest.fixture
def extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class behind the deployment, with a decoder that takes no time."""
    return quick_extractor(tmp_path, monkeypatch)


def quick_extractor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    extractor = extractor_in(folder, monkeypatch)
    extractor._decode = lambda *_, **__: Decoded(audio=AUDIO, duration_s=1.25, warnings=())
    return extractor


def check_nothing_is_half(extractor: Any, folder: Path) -> None:
    """No audio that could be taken for whole, and no file that nobody would delete."""
    assert extractor._scratch.info("job", "run") is None
    assert [path.name for path in (folder / "temp").rglob("*") if path.is_file() and path.name != ".lock"] == []
    assert [path.name for path in (folder / "scratch").rglob("*.tmp")] == []


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
async def test_d10_an_extraction_whose_disk_fails_at_any_write(extractor, tmp_path, caplog, error):
    """D10: video or audio that cannot be written is a lack of resources; no half audio; the next try succeeds."""
    caplog.set_level(logging.INFO)
    said = set()
    async with serving(whole(VIDEO)) as server:
        for fails_at in count(1):
            with failing_disk(tmp_path, fails_at=fails_at, error=error) as disk:
                try:
                    info = await extractor.prepare("job", "run", server.url("/v.mp4", SECRET))
                    break
                except OutOfResourcesError as lack:
                    said.add(str(lack))
            assert disk.writes >= fails_at
            check_nothing_is_half(extractor, tmp_path)
    assert fails_at > 8
    assert extractor._scratch.info("job", "run") == info
    np.testing.assert_array_equal(extractor.load("job", "run"), AUDIO)
    assert said == {"The server lacks the resources to process this video"}
    assert os.strerror(error) in caplog.text + str([vars(record) for record in caplog.records])
    assert str(tmp_path) not in caplog.text
    assert SECRET not in caplog.text


async def test_d10_an_extraction_on_a_full_disk(tmp_path, monkeypatch):
    """D10: the same on a real disk with room for less than all of it, page by page."""
    with small_disk(tmp_path / "disk", size_bytes=1 << 20) as disk:
        extractor = quick_extractor(disk, monkeypatch)
        async with serving(whole(VIDEO)) as server:
            for pages in count():
                with filled_up(disk, but_bytes=pages * PAGE_BYTES):
                    try:
                        await extractor.prepare("job", "run", server.url("/v.mp4", SECRET))
                        break
                    except OutOfResourcesError:
                        check_nothing_is_half(extractor, disk)
        np.testing.assert_array_equal(extractor.load("job", "run"), AUDIO)
        assert pages > AUDIO.nbytes // PAGE_BYTES
        extractor._work.close()


FILES = {name: content for name, content in model_hub.FILES.items() if name != "README.md"}


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_d10_a_model_whose_disk_fails_at_any_write(tmp_path, monkeypatch, error):
    """D10: a model that cannot be stored is told in a sentence without a path; no half file has a model's name."""
    links, disk, lock = tmp_path / "links", tmp_path / "disk", tmp_path / "lock.yaml"
    locks.write(lock, Lock(models=(in_two_wheels(links, model_hub.REPOSITORY, model_hub.REVISION, FILES),)))
    monkeypatch.setattr(packages, "_pip", copying_pip(links, tmp_path / "count"))
    config = ModelsConfig(lock=lock, cache_dir=disk / "hub", memory_dir=tmp_path / "state")
    hub = FakeHub(disk / "hub", refuses=True)
    folder = model_hub.snapshot(disk / "hub", model_hub.REPOSITORY, model_hub.REVISION)
    disk.mkdir()
    said = set()
    for fails_at in count(1):
        with failing_disk(disk, fails_at=fails_at, error=error) as failing:
            try:
                fetched = fetch(WHISPER, config, lock, hub, pin=False)
            except ModelLoadError as refused:
                said.add(str(refused))
            else:
                break
        assert failing.writes >= fails_at
        for path in folder.glob("*"):
            assert path.read_bytes() == FILES[path.name]
        shutil.rmtree(disk / "hub", ignore_errors=fails_at < 5)
    assert fails_at > 20
    assert said == {f"the {WHISPER} could not be stored: {os.strerror(error)}"}
    assert fetched.state is ModelState.OK


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_d10_a_lock_whose_disk_fails_at_any_write(tmp_path, error):
    """D10: the model lock is the old one or the new one, and beside it lies nothing."""
    path = tmp_path / "models.lock.yaml"
    old, new = (Lock(models=(LockedModel(kind="asr", name=name),)) for name in ("a/old", "a/new"))
    locks.write(path, old)
    for fails_at in count(1):
        with failing_disk(tmp_path, fails_at=fails_at, error=error):
            try:
                locks.write(path, new)
                break
            except OSError:
                pass
        assert locks.read(path) == old
        assert list(tmp_path.iterdir()) == [path]
    assert fails_at > 2
    assert locks.read(path) == new


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_d10_digests_whose_disk_fails_at_any_write(tmp_path, error):
    """D10: where digests cannot be remembered they are computed each time, and nothing is left that fills the disk."""
    model, memory = tmp_path / "model.bin", tmp_path / "memory"
    model.write_bytes(b"weights")
    for fails_at in count(1):
        with failing_disk(memory, fails_at=fails_at, error=error) as failing:
            digests = Digests(memory)
            assert digests.of(model) == model_hub.sha256(b"weights")
            digests.save()
        if failing.writes < fails_at:
            break
        assert list(memory.glob("*")) == []
    assert fails_at > 2
    assert [path.name for path in memory.iterdir()] == [MEMORY]


@contextmanager
def cannot_grow(folder: Path, pages: int) -> Iterator[None]:
    """No file gets longer than so many pages: to SQLite an error of the disk, for its log above all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE_BYTES + 100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def has_room(folder: Path, pages: int) -> Iterator[None]:
    """The disk is full but for so many pages."""
    with filled_up(folder, but_bytes=pages * PAGE_BYTES):
        yield


@pytest.mark.parametrize("fault", [has_room, cannot_grow])
def test_d10_an_end_that_sqlite_cannot_store_at_any_write(tmp_path, monkeypatch, fault):
    """D10: job and end are refused as a whole, wherever the write fails; with room again the same end is stored."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 1)
    with small_disk(tmp_path / "disk", size_bytes=4 << 20) if fault is has_room else nullcontext(tmp_path) as disk:
        database = Database(f"sqlite:///{disk / 'jobs.db'}")
        database.create()
        store = stores(database, queue_limit=1000, running_limit=1000)
        attempt = started(store, "ends", CALLBACK_URL)
        end = Outcome(result=b"x" * 100_000, duration_s=1.0, processing_s=2.0)
        for pages in count():
            database.forget()  # its log begins anew
            with fault(disk, pages):
                submitted = tried(store.jobs.submit_job, new_job(f"new-{pages}"))
                ending = tried(store.attempts.finish_job, attempt, end)
            assert (store.jobs.fetch_job(f"new-{pages}") is not None) == (submitted is not None)
            if ending is not None:
                break
            assert store.jobs.fetch_job("ends").state is JobState.RUNNING
            assert store.jobs.fetch_result("ends") is None
            assert store.outbox.status("ends").state is CallbackState.NONE
        assert pages > 25
        assert store.jobs.fetch_result("ends") == end.result
        assert store.outbox.claim(ending.callback_id) is not None
        with database.read() as db:
            assert db.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        database.close()


def test_d10_no_room_for_one_more_file_of_sqlite(tmp_path):
    """D10: lock, database, log and index are made, or the start is refused, and a later one finds nothing broken."""
    with small_disk(tmp_path / "disk", size_bytes=1 << 20, files=4) as disk:
        others = [disk / f"other-{number}" for number in range(4)]
        for other in others:
            other.touch()
        for other in others:
            database = Database(f"sqlite:///{disk / 'jobs.db'}")
            with pytest.raises(SQLAlchemyError):
                database.create()
            database.close()
            other.unlink()
        database = Database(f"sqlite:///{disk / 'jobs.db'}")
        database.create()
        assert stores(database, queue_limit=1, running_limit=1).jobs.submit_job(new_job()).started
        database.close()


def tried(write: Callable[..., Answer], *args: object) -> Answer | None:
    """The answer of a write, None where the database refused it."""
    try:
        return write(*args)
    except SQLAlchemyError:
        return None
