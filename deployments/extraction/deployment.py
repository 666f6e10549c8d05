"""The Ray Serve class of audio extraction."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments import logs, replica
from deployments.extraction import limited_process
from deployments.extraction.protocol import Part, Selection
from deployments.extraction.registry import create
from deployments.extraction.scratch import Scratch, WorkDir
from deployments.metrics import DOWNLOAD_BYTES
from deployments.net.download import download
from deployments.transcriber.protocol import AUTO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from deployments.extraction.config import ExtractorConfig
    from deployments.extraction.scratch import RunId
    from deployments.types import Audio, AudioInfo

REPORT_EVERY_S = 0.5

_log = logs.get_logger("extraction")


class ProgressReporter:
    """Reports each part's beginning and end, and at most every `REPORT_EVERY_S` between."""

    def __init__(self, actor: Any) -> None:
        """`actor` is the handle of a Ray actor with a method `report_progress(part, fraction)`, or None."""
        self._actor = actor
        self._next_at = dict.fromkeys(Part, 0.0)

    def report_progress(self, part: Part, fraction: float) -> None:
        """Report that `fraction` (0-1) of `part` is done, unless a report was made just before. Never waits."""
        now = time.monotonic()
        if self._actor is None or (now < self._next_at[part] and fraction < 1.0):
            return
        self._next_at[part] = now + REPORT_EVERY_S
        # A job actor that the release before has started knows the method by its former name only.
        report = getattr(self._actor, "report_progress", None) or self._actor.stage_progress
        report.remote(part.value, fraction)


@serve.deployment(health_check_period_s=replica.HEALTH_CHECK_S)
class AudioExtractor:
    """Turns a video's URL into audio and stores it while its job runs."""

    def __init__(self, config: ExtractorConfig) -> None:
        replica.prepare()
        self._config = config
        self._decode = create(config)
        self._scratch = Scratch(config.scratch_url)
        self._work = WorkDir(config.temp_dir)
        self._decoding = asyncio.Semaphore(config.media.decodes_at_once)
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}
        DOWNLOAD_BYTES.begin()

    def __del__(self) -> None:  # Serve calls it when a replica shuts down
        if work := getattr(self, "_work", None):
            work.close()

    def __repr__(self) -> str:
        return f"AudioExtractor(busy={len(self._busy)}, {self._scratch})"

    async def prepare(
        self, job_id: str, run: RunId, url: str, reporter: Any = None, language: str = AUTO, **selection: Any
    ) -> AudioInfo:
        """Make sure that the audio of this run is stored: download and decode it unless it is.

        `reporter` is the handle of the actor that gets the progress, see `ProgressReporter`; `language`: see `Decoder`;
        `selection` has fields of `Selection`, the same in all calls of a run, so that what is stored is what is asked
        for. Raises what `download` and `Decoder` raise.
        """
        async with self._one_at_a_time(f"{job_id}/{run}"):
            stored = await limited_process.in_thread(lambda _: self._scratch.info(job_id, run))
            if stored is not None:
                return stored
            with self._work.job() as folder:
                return await self._extract(
                    job_id,
                    run,
                    url,
                    folder / "video",
                    ProgressReporter(reporter),
                    language=language,
                    selection=Selection(**selection),
                )

    @asynccontextmanager
    async def _one_at_a_time(self, run: str) -> AsyncIterator[None]:
        """Serialise the calls of a run: one that starts while its audio is prefetched waits, and finds the audio."""
        lock, users = self._busy.get(run, (asyncio.Lock(), 0))
        self._busy[run] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._busy.pop(run)
            if users > 1:
                self._busy[run] = lock, users - 1

    async def _extract(
        self,
        job_id: str,
        run: RunId,
        url: str,
        video: Path,
        progress: ProgressReporter,
        *,
        language: str,
        selection: Selection,
    ) -> AudioInfo:
        began = time.monotonic()
        got = await download(
            url,
            video,
            policy=self._config.net,
            limits=self._config.download,
            on_progress=lambda done, total: progress.report_progress(Part.DOWNLOAD, done / total) if total else None,
        )
        downloaded = time.monotonic()
        DOWNLOAD_BYTES.inc(got.size_bytes)
        async with self._decoding:  # until the audio is stored, it is in our memory
            decoded = await limited_process.in_thread(
                lambda stop: self._decode(
                    video,
                    language=language,
                    selection=selection,
                    on_fraction=lambda fraction: progress.report_progress(Part.EXTRACT, fraction),
                    stop=stop,
                )
            )
            extracted = time.monotonic()
            video.unlink()  # noqa: ASYNC240 - a local file: microseconds
            info = await limited_process.in_thread(
                lambda _: self._scratch.save(
                    job_id,
                    run,
                    decoded.audio,
                    duration_s=decoded.duration_s,
                    warnings=decoded.warnings,
                    channels=decoded.channels,
                )
            )
        _log.info(
            "audio extracted",
            extra=logs.about(
                job_id,
                run=run,
                video_bytes=got.size_bytes,
                cuts=got.cuts,
                download_s=round(downloaded - began, 2),
                extract_s=round(extracted - downloaded, 2),
                keep_s=round(time.monotonic() - extracted, 2),
                audio_s=round(info.duration_s, 2),
            ),
        )
        return info

    def load(self, job_id: str, run: RunId) -> Audio:
        """Return the audio of a prepared run, read-only. Raises AudioMissingError where it has to be prepared again."""
        return self._scratch.load(job_id, run)

    def discard(self, job_id: str, run: RunId | None = None) -> None:
        """Delete the stored audio of a run, or of all runs of a job."""
        self._scratch.discard(job_id, run)

    def kept_jobs(self) -> list[str]:
        """Return the names of the folders with stored audio, so that the caller can discard those of lost jobs."""
        return self._scratch.folders()

    def discard_folders(self, names: Sequence[str]) -> None:
        """Delete some of the folders that `kept_jobs` returns."""
        self._scratch.discard_folders(names)
