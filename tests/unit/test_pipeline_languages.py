"""What a job's `vocabulary` and `languages` change in its calls, its checkpoints and its result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.transcriber.config import TranscriberConfig
from deployments.types import Span, Transcript, Utterance, Word
from deployments.warnings import WarningCode
from serve_app.jobs.stages import Step
from serve_app.pipeline.pipeline import Pipeline
from serve_app.pipeline.segments import segments_of
from serve_app.settings import Settings
from serve_app.testing import FakeHandle
from tests.support.fake_graph import graph, job

SPEECH = [Span(start_s=at, end_s=at + 4.0) for at in (0.0, 4.5, 9.0, 13.5)]
EARS = TranscriberConfig(model="base", max_chunk_s=8)
TERMS = ("Sejong-daero", "GraphQL")


class Ear:
    """Hears Korean in the first half and English in the second; remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.detections = 0

    def transcribe(
        self, _audio: Any, chunk: Span, language: str, _job_id: str, _speech: Any, **more: Any
    ) -> Transcript:
        self.asked.append((language, more))
        words = tuple(
            Word(start_s=chunk.start_s + at, end_s=chunk.start_s + at + 1, text=f"{language}{at}", probability=0.5)
            for at in range(int(chunk.duration_s))
        )
        said = Utterance(start_s=chunk.start_s, end_s=chunk.end_s, text=" ".join(w.text for w in words), words=words)
        return Transcript(language=language, utterances=(said,))

    def detect_language(self, _audio: Any, span: Span, _job_id: str, **_: Any) -> dict[str, float]:
        self.detections += 1
        return {"ja": 0.5, "ko": 0.4, "en": 0.01} if span.end_s < 9 else {"en": 0.9, "ko": 0.01}

    @property
    def handle(self) -> FakeHandle:
        return FakeHandle(transcribe=self.transcribe, detect_language=self.detect_language)


class Checkpoints:
    """Remembers the source of each step."""

    def __init__(self) -> None:
        self.made_from: dict[str, str] = {}

    async def sources(self) -> dict[str, Any]:
        return {}

    async def load(self, _step: Step, _source: str) -> None:
        return None

    def save(self, step: Step, source: str, _answer: Any) -> None:
        self.made_from[step] = source


def run(ear: Ear, checkpoints: Checkpoints | None = None, **options: Any) -> dict[str, Any]:
    stages = graph(transcriber=ear.handle, detector=FakeHandle(detect=lambda *_: SPEECH))
    settings = Settings(profile="local", transcriber=EARS)
    running = Pipeline(
        job(**options),
        settings,
        stages,
        report_progress=lambda *_: None,
        checkpoints=checkpoints,  # type: ignore[arg-type]
    )
    return asyncio.run(running.run(spent_s=0.0))


def test_the_vocabulary_goes_to_each_chunk() -> None:
    """As it was given; a job without one makes the release before's call."""
    ear = Ear()
    run(ear, language="en", vocabulary=TERMS)
    assert ear.asked == [("en", {"vocabulary": TERMS})] * len(ear.asked) != []
    plain = Ear()
    run(plain, language="en")
    assert plain.asked == [("en", {})] * len(ear.asked)


def test_only_the_languages_that_are_named_are_looked_for() -> None:
    """What sounds Japanese first is heard in Korean, each half in its own; each segment tells its language."""
    ear = Ear()
    result = run(ear, languages=("en", "ko"))
    assert {language for language, _ in ear.asked} == {"en", "ko"}
    told = [(each["language"], each["end_time"] <= 9) for each in result["segments"]]
    assert set(told) == {("ko", True), ("en", False)}
    assert all(each["text"].startswith(each["language"]) for each in result["segments"])
    assert all({word["word"][:2] for word in each["words"]} == {each["language"]} for each in result["segments"])
    codes = {each["code"] for each in result["metadata"]["warning_codes"]}
    assert not codes & {WarningCode.OTHER_LANGUAGE, WarningCode.LANGUAGE_UNCERTAIN}


def test_without_them_nothing_is_told() -> None:
    """No segment has a language, whatever was detected."""
    result = run(Ear())
    assert not [each for each in result["segments"] if "language" in each]


def test_one_language_is_not_detected() -> None:
    """It is as if the job had it as its `language`, but that segments tell it."""
    ear = Ear()
    result = run(ear, languages=("ko",))
    assert (ear.detections, {language for language, _ in ear.asked}) == (0, {"ko"})
    assert (result["language"], {each["language"] for each in result["segments"]}) == ("ko", {"ko"})
    assert "language_probability" not in result["metadata"]
    silent = graph(transcriber=Ear().handle, detector=FakeHandle(detect=lambda *_: []))
    settings = Settings(profile="local", transcriber=EARS)
    running = Pipeline(job(languages=("ko",)), settings, silent, report_progress=lambda *_: None)
    assert asyncio.run(running.run(spent_s=0.0))["language"] == "ko"


@pytest.mark.parametrize("options", [{"vocabulary": TERMS}, {"vocabulary": TERMS[:1]}, {"languages": ("en", "ko")}])
def test_a_transcription_is_made_of_them(options: dict[str, Any]) -> None:
    """Its checkpoint is another one with each vocabulary and with languages; those of other steps are the same."""
    with_them, without = Checkpoints(), Checkpoints()
    run(Ear(), with_them, **options)
    run(Ear(), without)
    changed = {step for step, source in with_them.made_from.items() if source != without.made_from[step]}
    assert Step.TRANSCRIPTION in changed
    assert not changed & {Step.EXTRACTION, Step.DETECTION, Step.DIARIZATION, Step.TRACKS}


def test_a_change_of_language_ends_a_segment() -> None:
    """Even in the middle of a breath, and for a single word; where languages do not count it is one segment."""

    def said(start_s: float, *texts: str) -> Utterance:
        words = tuple(
            Word(start_s=start_s + 0.5 * at, end_s=start_s + 0.5 * at + 0.5, text=text) for at, text in enumerate(texts)
        )
        return Utterance(start_s=start_s, end_s=words[-1].end_s, text=" ".join(texts), words=words)

    utterances = [said(1.5, "well", "then"), said(0.0, "그러니까", "이제", "자"), said(2.5, "네")]
    cut = segments_of(utterances, [], ["en", "ko", "ko"])
    assert [each.text for each in cut] == ["그러니까 이제 자", "well then", "네"]
    assert [each.text for each in segments_of(utterances, [])] == ["그러니까 이제 자 well then 네"]
