"""The whole extraction, from URL to kept audio, in its Ray class but without Ray."""

from __future__ import annotations

import asyncio
import hashlib
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments.errors import AudioExtractionError, DownloadError, VideoTooLongError
from deployments.extraction import limited_process
from deployments.extraction.config import MediaLimits
from deployments.extraction.deployment import ProgressReporter
from deployments.extraction.protocol import Part
from deployments.extraction.scratch import AudioMissingError
from serve_app.orchestration.job_actor import JobActor
from tests.support.clips import GOOD, make, silence
from tests.support.extractors import extractor_in
from tests.support.hostile_media import element, matroska
from tests.support.memory import Growth
from tests.support.servers import dripping, serving, status, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.counted import Counted


class Progress:
    """Stands where an actor's handle would: `handle.report_progress.remote(part, fraction)`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    @property
    def report_progress(self) -> Progress:
        return self

    def remote(self, part: str, fraction: float) -> None:
        self.told.append((part, fraction))


@pytest.fixture
def extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class behind the deployment, on folders of its own."""
    return extractor_in(tmp_path, monkeypatch)


def leftovers(tmp_path: Path) -> list[str]:
    """Temporary files that are still there."""
    return [path.name for path in (tmp_path / "temp").rglob("*") if path.is_file() and path.name != ".lock"]


async def test_prepare_load_discard(extractor: Any, tmp_path: Path, counted: Counted) -> None:
    """A URL becomes audio once: the second time it is there at once; after `discard` it is gone."""
    video = make(tmp_path / "a.mp4", GOOD["aac.mp4"]).read_bytes()
    progress = Progress()
    async with serving(whole(video)) as server:
        first = await extractor.prepare("job", 1, server.url(), progress)
        second = await extractor.prepare("job", 1, server.url(), progress)
        connections = server.connections
    assert first == second
    assert connections == 1
    assert counted.values("download_bytes") == [len(video)]
    audio = extractor.load("job", 1)
    assert hashlib.sha256(audio.data.cast("B")).hexdigest() == first.sha256
    assert len(audio) == first.samples
    assert {part for part, _ in progress.told} == {"download", "extract"}
    assert all(0 <= fraction <= 1 for _, fraction in progress.told)
    assert leftovers(tmp_path) == []
    assert extractor.kept_jobs() == ["job"]
    extractor.discard("job")
    with pytest.raises(AudioMissingError):
        extractor.load("job", 1)


def test_progress_between_an_extractor_and_a_job_actor_of_two_releases() -> None:
    """While `serve deploy` runs, each may be of the release before, which calls the method `stage_progress`."""
    told: list[tuple[str, float]] = []
    former = SimpleNamespace(stage_progress=SimpleNamespace(remote=lambda *report: told.append(report)))
    ProgressReporter(former).report_progress(Part.DOWNLOAD, 0.5)
    assert told == [("download", 0.5)]
    assert JobActor.stage_progress is JobActor.report_progress


async def test_d13_what_was_fetched_ahead_needs_no_url(extractor: Any, tmp_path: Path) -> None:
    """D13: only the audio is kept, not the video, and when the URL is dead the job finds it all the same."""
    video = make(tmp_path / "a.mp4", GOOD["aac.mp4"]).read_bytes()
    async with serving(whole(video)) as server:
        ahead = await extractor.prepare("job", 1, server.url())
    assert await extractor.prepare("job", 1, server.url()) == ahead
    assert leftovers(tmp_path) == []
    kept = [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == ["1.json", "1.npy"]


async def test_damaged_audio_is_extracted_again(extractor: Any, tmp_path: Path) -> None:
    """D5: a checkpoint that does not match its digest costs a new extraction, not a wrong transcript."""
    video = make(tmp_path / "a.mp4", GOOD["aac.mp4"]).read_bytes()
    async with serving(whole(video)) as server:
        first = await extractor.prepare("job", 1, server.url())
        array = tmp_path / "scratch" / "job" / "1.npy"
        array.write_bytes(array.read_bytes()[:-100])
        second, connections = await extractor.prepare("job", 1, server.url()), server.connections
    assert first == second
    assert connections == 2


@pytest.mark.parametrize(
    ("body", "error"), [(None, DownloadError), (b"no video at all", AudioExtractionError), (b"", DownloadError)]
)
async def test_failures_leave_nothing(
    body: bytes | None, error: type[Exception], extractor: Any, tmp_path: Path
) -> None:
    """A failed extraction raises its error and leaves no file."""
    async with serving(status(404) if body is None else whole(body)) as server:
        with pytest.raises(error):
            await extractor.prepare("job", 1, server.url())
    assert leftovers(tmp_path) == []
    assert extractor.kept_jobs() == []


async def test_cancelling_the_download_leaves_nothing(extractor: Any, tmp_path: Path) -> None:
    """A job cancelled while it downloads stops within a second, its temporary files are gone."""
    async with serving(dripping()) as server:
        task = asyncio.create_task(extractor.prepare("job", 1, server.url()))
        await server.arrived.wait()
        assert await _cancel(task) < 1
    assert leftovers(tmp_path) == []


async def test_cancelling_the_decoder_leaves_nothing(extractor: Any, tmp_path: Path) -> None:
    """A job cancelled while ffmpeg runs stops within a second: no process, no file."""
    video = silence(tmp_path / "a.wav", 1200).read_bytes()

    class Cancelling(Progress):
        """Calls when the first decoded sample has come."""

        def remote(self, part: str, fraction: float) -> None:
            super().remote(part, fraction)
            if part == "extract":
                loop.call_soon_threadsafe(decoding.set)

    loop: Any = None
    decoding: Any = None
    loop, decoding = asyncio.get_running_loop(), asyncio.Event()
    async with serving(whole(video)) as server:
        task = asyncio.create_task(extractor.prepare("job", 1, server.url(), Cancelling()))
        await decoding.wait()
        assert await _cancel(task) < 1
    assert leftovers(tmp_path) == []


async def _cancel(task: asyncio.Task[Any]) -> float:
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


async def test_many_at_once_do_not_mix(extractor: Any, tmp_path: Path) -> None:
    """Four videos at once: each job has its own sound."""
    videos = {
        f"job{i}": make(tmp_path / f"{i}.wav", "-vn", rate=8000 * (i + 1)).read_bytes()[: -4000 * i or None]
        for i in range(4)
    }

    async def one(job_id: str, video: bytes) -> Any:
        async with serving(whole(video)) as server:
            return await extractor.prepare(job_id, 1, server.url())

    infos = await asyncio.gather(*(one(*item) for item in videos.items()))
    assert len({info.sha256 for info in infos}) == 4
    for job_id, info in zip(videos, infos, strict=True):
        assert len(extractor.load(job_id, 1)) == info.samples
        assert np.abs(extractor.load(job_id, 1)).max() > 10_000


def test_its_name_on_the_dashboard_tells_its_load(extractor: Any) -> None:
    """The dashboard's line is short and tells what it does."""
    assert repr(extractor) == "AudioExtractor(busy=0, Scratch(local folder))"


async def test_m2_audio_is_decoded_once(extractor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M2: one child decodes once for a run, however often its audio is asked for, even by several at once."""
    video = make(tmp_path / "a.mp4", GOOD["aac.mp4"]).read_bytes()
    started: list[Any] = []
    run = limited_process.run

    def counting(command: Any, **options: Any) -> Any:
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(limited_process, "run", counting)
    async with serving(whole(video)) as server:
        await asyncio.gather(*(extractor.prepare("job", 1, server.url()) for _ in range(3)))
    sounds = [extractor.load("job", 1) for _ in range(3)]
    assert len(started) == 1
    assert all(isinstance(sound, np.ndarray) and not sound.flags.writeable for sound in sounds)


def test_m4_ten_bombs_leave_memory_and_disk(extractor: Any, tmp_path: Path) -> None:
    """M4: ten videos at once that unfold to more sound than is allowed: ten errors, memory bounded, nothing on disk."""
    extractor._config = extractor._config.model_copy(update={"media": MediaLimits(max_duration_s=1200)})
    bomb = matroska() + b"".join(
        element("1f43b675", element("e7", (at_s * 1000).to_bytes(4)) + element("a3", b"\x81\0\0\x80\0\0"))
        for at_s in range(0, 7200, 1200)
    )

    async def main() -> list[Any]:
        async with serving(whole(bomb)) as server:
            jobs = [extractor.prepare(f"job{i}", 1, server.url()) for i in range(10)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    extractor._work.path.mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    growth = Growth()
    errors = asyncio.run(main())
    assert [type(error) for error in errors] == [VideoTooLongError] * 10
    assert growth.kb < 180_000  # three at once, of 38 MB until it is stored
    assert sorted(tmp_path.rglob("*")) == before
