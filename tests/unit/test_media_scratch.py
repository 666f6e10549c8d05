"""The audio of running jobs: kept whole, or not at all. And where videos lie meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import tracemalloc
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from deployments.errors import OutOfResourcesError
from deployments.extraction.scratch import AudioMissingError, Scratch, WorkDir, sweep
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.types import Audio

DAMAGED = ResultWarning(code=WarningCode.AUDIO_DAMAGED, seconds=1.5, share=0.1)
LONGER = ResultWarning(code=WarningCode.AUDIO_LONGER, seconds=1 / 3)
AUDIO: Audio = np.random.default_rng(1).integers(-32768, 32767, 100_000, np.int16)


@pytest.fixture(params=["folder", "file-url", "memory"])
def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> Scratch:
    """The same promises hold for a local folder and for any other place."""
    urls = {
        "folder": str(tmp_path / "scratch"),
        "file-url": f"file://{tmp_path}/scratch",
        "memory": f"memory://{uuid.uuid4()}/scratch",
    }
    return Scratch(urls[request.param])


def save(scratch: Scratch, job_id: str = "job", run: int = 1, audio: Audio = AUDIO) -> None:
    scratch.save(job_id, run, audio, duration_s=7.5, warnings=(DAMAGED,))


def test_what_is_kept_comes_back(scratch: Scratch) -> None:
    """The same samples, read-only, and the same facts about them."""
    info = scratch.save("job", 2, AUDIO, duration_s=7.5, warnings=(DAMAGED, LONGER))
    assert scratch.info("job", 2) == info
    assert (info.samples, info.duration_s, info.warnings) == (100_000, 7.5, (DAMAGED, LONGER))
    audio = scratch.load("job", 2)
    np.testing.assert_array_equal(audio, AUDIO)
    assert not audio.flags.writeable


def test_empty_audio_is_audio(scratch: Scratch) -> None:
    """No samples at all survive the trip, too."""
    save(scratch, audio=AUDIO[:0])
    assert len(scratch.load("job", 1)) == 0


def test_a_part_of_an_array_is_kept_as_that_part(scratch: Scratch) -> None:
    """Views and strides are no trouble."""
    save(scratch, audio=AUDIO[1000:5000:3])
    np.testing.assert_array_equal(scratch.load("job", 1), AUDIO[1000:5000:3])


def test_runs_do_not_mix(scratch: Scratch) -> None:
    """A new run of a job does not find the old run's audio."""
    save(scratch, run=1)
    assert scratch.info("job", 2) is None
    with pytest.raises(AudioMissingError):
        scratch.load("job", 2)


def test_discard_takes_the_whole_job_and_no_other(scratch: Scratch) -> None:
    """After `discard` nothing of the job is left; the neighbour stays; twice is no error."""
    for job_id in ("job", "job2"):
        save(scratch, job_id)
        save(scratch, job_id, run=2)
    scratch.discard("job")
    scratch.discard("job")
    assert scratch.folders() == ["job2"]
    assert scratch.info("job", 1) is None
    assert scratch.info("job2", 2) is not None


@pytest.mark.parametrize("job_id", ["a:b", "a..", "A" * 128, "0.-_:", "x%2Fy"])
def test_all_allowed_ids_are_folders(job_id: str, scratch: Scratch) -> None:
    """Any id that the contract allows can be kept, found, listed and discarded."""
    save(scratch, job_id)
    assert scratch.info(job_id, 1) is not None
    assert scratch.folders() == [job_id]
    scratch.discard(job_id)
    assert scratch.folders() == []


def test_ids_do_not_climb(tmp_path: Path) -> None:
    """Even an id that the API would refuse stays inside."""
    scratch = Scratch(str(tmp_path / "scratch"))
    save(scratch, "../../evil")
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.parametrize("damage", ["truncated", "altered", "longer", "no note", "no array", "bad note", "old note"])
def test_d5_damaged_audio_does_not_exist(damage: str, tmp_path: Path) -> None:
    """D5: what does not match its digest is extracted again, never handed out."""
    scratch = Scratch(str(tmp_path))
    save(scratch)
    array, note = tmp_path / "job" / "1.npy", tmp_path / "job" / "1.json"
    content = bytearray(array.read_bytes())
    if damage == "truncated":
        os.truncate(array, len(content) - 2)
    elif damage == "altered":
        content[-1] ^= 1
        array.write_bytes(content)
    elif damage == "longer":
        save(scratch, run=2, audio=np.append(AUDIO, AUDIO[:1]))
        (tmp_path / "job" / "2.npy").replace(array)
    elif damage == "bad note":
        note.write_text("{")
    elif damage == "old note":
        note.write_text(json.dumps({"samples": 100_000}))
    else:
        (note if damage == "no note" else array).unlink()
    assert scratch.info("job", 1) is None
    with pytest.raises(AudioMissingError):
        scratch.load("job", 1)


def test_a_broken_save_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up half-way: a lack of resources, no half file, the earlier audio untouched."""
    scratch = Scratch(str(tmp_path))
    save(scratch)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OutOfResourcesError):
        save(scratch, audio=AUDIO[:10])
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["1.json", "1.npy"]
    np.testing.assert_array_equal(scratch.load("job", 1), AUDIO)


def test_d5_audio_that_the_disk_cannot_read_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D5: a read error costs a new extraction, which writes a new file, and not the job."""
    scratch = Scratch(str(tmp_path))
    save(scratch)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("deployments.extraction.scratch._read_array", fails)
        assert scratch.info("job", 1) is None
        with pytest.raises(AudioMissingError):
            scratch.load("job", 1)
    assert scratch.info("job", 1) is not None


def test_memory_is_used_once(tmp_path: Path) -> None:
    """Saving copies nothing, loading makes one array (an hour is 115 MB)."""
    scratch = Scratch(str(tmp_path))
    audio = np.zeros(20_000_000, np.int16)
    tracemalloc.start()
    try:
        scratch.save("job", 1, audio, duration_s=1, warnings=())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        scratch.load("job", 1)
        assert tracemalloc.get_traced_memory()[1] < audio.nbytes + 1_000_000
    finally:
        tracemalloc.stop()


def test_d12_a_jobs_folder_goes_with_the_job(tmp_path: Path) -> None:
    """D12: temporary files go when the work ends, also where it ends badly."""
    work = WorkDir(tmp_path)
    with contextlib.suppress(ZeroDivisionError), work.job() as folder:
        (folder / "video").write_bytes(b"x")
        _ = 1 / 0
    assert not folder.exists()
    work.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_closed_again_closes_no_other_file(tmp_path: Path) -> None:
    """A replica's end closes it, and so does the garbage collector, when its descriptor may be a database's."""
    work = WorkDir(tmp_path / "work")
    lock = work._lock
    assert lock is not None
    with (tmp_path / "other").open("wb") as other:
        work.close()
        os.dup2(other.fileno(), lock)
        work.close()
        os.close(lock)  # it is still there to be closed


def test_d12_what_a_killed_process_leaves_is_swept_up(tmp_path: Path) -> None:
    """D12: folders of a process that was killed with -9 go when the next one starts; those of a living one stay."""
    code = f"""
import os, signal, pathlib
from deployments.extraction.scratch import WorkDir
work = WorkDir(pathlib.Path({str(tmp_path)!r}))
(work.path / "video").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""
    alive = WorkDir(tmp_path)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    other = WorkDir(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive.path, other.path])
    assert sweep(tmp_path) == 0
    alive.close()
    other.close()
