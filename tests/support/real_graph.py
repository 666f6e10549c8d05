"""What a job makes of a recording, without Ray: the server's pipeline over its own deployment classes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from deployments import replica
from deployments.aligner.deployment import Aligner
from deployments.diarizer.deployment import Diarizer
from deployments.models.config import ModelsConfig
from deployments.prosody.deployment import ProsodyAnalyzer
from deployments.speech_detector.deployment import SpeechDetector
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.deployment import Transcriber
from deployments.types import SAMPLE_RATE_HZ, AudioInfo, Turn, joined
from serve_app.pipeline import pipeline
from serve_app.settings import Settings
from serve_app.testing import FakeHandle, fake_stages
from tests.support.fake_graph import job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Segment, Word
    from deployments.warnings import ResultWarning


class Analysis(SimpleNamespace):
    """What the result is assembled from: the arguments of `result_of`."""

    segments: list[Segment]
    language: str
    warnings: list[ResultWarning]
    quality: dict[str, Any] | None


class RealGraph:
    """The detector and the recogniser with its `model`, loaded; the other stages where `settings` name them.

    Prosody is the shipped fake unless they name it, and nobody judges emotions. All compute on one thread of the CPU.
    """

    def __init__(self, model: object, *, max_chunk_s: float = 30.0, **settings: Any) -> None:
        ears = TranscriberConfig(model=str(model), device="cpu", threads=1, max_chunk_s=max_chunk_s)
        models = ModelsConfig(allow_unpinned=True)
        self._settings = config = Settings(profile="local", models=models, transcriber=ears, **settings)
        self.turns: list[Turn] = []
        """In the newest recording; none without a diarizer."""
        with mock.patch.multiple(
            replica, prepare=mock.DEFAULT, prepare_torch=mock.DEFAULT
        ):  # this process is no replica
            stages: dict[str, Any] = {
                "detector": SpeechDetector.func_or_class(config.speech_detector),
                "transcriber": Transcriber.func_or_class(ears, models, config.aligner),
            }
            if "aligner" in settings:
                stages["aligner"] = Aligner.func_or_class(config.aligner, models)
            if "prosody" in settings:
                stages["prosody"] = ProsodyAnalyzer.func_or_class(config.prosody)
            if "diarizer" in settings:
                stages["diarizer"] = Diarizer.func_or_class(config.diarizer, models)
        methods = {name: {each: getattr(of, each) for each in dir(of)} for name, of in stages.items()}
        self._cluster = methods.setdefault("diarizer", dict.fromkeys(("segment", "embed", "cluster"), _nobody))[
            "cluster"
        ]
        methods["diarizer"]["cluster"] = self._remembered
        self._handles = {name: FakeHandle(each, takes_s=0) for name, each in methods.items()}

    async def _remembered(self, *embedded: Any) -> list[Turn]:
        self.turns = await self._cluster(*embedded)
        return self.turns

    def hear(self, audio: Audio, *, apart: int = 1, warnings: Sequence[ResultWarning] = (), **options: Any) -> Analysis:
        """What a job with `options` makes of `audio`, of which extraction gave `warnings`.

        It has so many channels `apart`, one after the other.
        """
        duration_s = len(audio) / SAMPLE_RATE_HZ
        given = {"warnings": tuple(warnings), "channels": apart}
        info = AudioInfo(duration_s=duration_s, samples=len(audio), sha256="", **given)
        extractor = FakeHandle(prepare=lambda *_, **__: info, load=lambda *_: audio)
        stages = fake_stages(**{"extractor": extractor, "aligner": None} | self._handles)
        asked = job(**{"emotion_detection": False, "max_workers": 16} | options)
        running = pipeline.Pipeline(asked, self._settings, stages, report_progress=lambda *_: None)
        with mock.patch.object(pipeline, "result_of", lambda _locale, **found: Analysis(**found)):
            return cast("Analysis", asyncio.run(running.run(spent_s=0.0)))


async def _nobody(*_: Any) -> list[Turn]:
    return []


def text_of(heard: Analysis) -> str:
    return joined(segment.text for segment in heard.segments)


def words_of(heard: Analysis) -> list[tuple[Word, int]]:
    """Each word with its speaker."""
    return [(word, segment.speaker) for segment in heard.segments for word in segment.words]
