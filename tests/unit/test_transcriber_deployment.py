from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from deployments import replica
from deployments.aligner.config import AlignerConfig
from deployments.errors import DeviceError, TranscriptionError
from deployments.models.config import ModelsConfig
from deployments.transcriber import deployment
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.protocol import AUTO
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript, Utterance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.protocol import Chunk
    from tests.support.counted import Counted

TESTS = Path(__file__).parents[1]
SPEECH = TESTS / "data" / "speech"
WHISPER = TranscriberConfig(
    engine="whisperx", model=str(TESTS / "models" / "asr"), device="cpu", threads=1, batch_size=8
)
GAP_S = 0.5


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a replica's object without Ray; its process keeps its manners."""
    monkeypatch.setattr(replica, "prepare", lambda **_: None)
    monkeypatch.setattr("deployments.models.store.go_offline", lambda: None)
    return partial(
        deployment.Transcriber.func_or_class, models=ModelsConfig(allow_unpinned=True), aligner=AlignerConfig()
    )


class Engine:
    """Writes each chunk's language, where it does not fail as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.batches: list[int] = []

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        self.batches.append(len(chunks))
        if self.error is not None and chunks:
            raise self.error
        return [
            Transcript(language=chunk.language, utterances=(Utterance(start_s=0, end_s=1, text="x"),))
            for chunk in chunks
        ]

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:  # noqa: ARG002
        return [{"ko": 1.0} for _ in chunks]


def video(language: str) -> tuple[np.ndarray, list[Span], list[str]]:
    """All clips of a language one after the other: the whole video's audio, its chunks, its texts."""
    texts = {
        name: clip["text"]
        for name, clip in json.loads((SPEECH / "texts.json").read_text(encoding="utf-8")).items()
        if clip["language"] == language
    }
    pieces, chunks, at_s = [], [], 0.0
    for name in texts:
        pieces += [soundfile.read(SPEECH / name, dtype="int16")[0], np.zeros(int(GAP_S * SAMPLE_RATE_HZ), np.int16)]
        chunks.append(Span(start_s=at_s, end_s=at_s + len(pieces[-2]) / SAMPLE_RATE_HZ))
        at_s += (len(pieces[-2]) + len(pieces[-1])) / SAMPLE_RATE_HZ
    return np.concatenate(pieces), chunks, list(texts.values())


async def test_two_jobs_of_different_languages_get_their_own_words(start: Any) -> None:
    """An English and a Korean job at once, one with its language given, one found: each gets what it gets alone."""
    jobs = {"english": (*video("en"), "en"), "korean": (*video("ko"), AUTO)}
    transcriber = start(WHISPER)

    async def job(job_id: str) -> list[Transcript]:
        audio, chunks, _, language = jobs[job_id]
        asked = (transcriber.transcribe(audio, chunk, language, job_id, [chunk]) for chunk in chunks)
        return await asyncio.gather(*asked)

    alone = [await job(job_id) for job_id in jobs]
    together = await asyncio.gather(*map(job, jobs))
    for transcripts, before, (_, chunks, texts, _), language in zip(
        together, alone, jobs.values(), ("en", "ko"), strict=True
    ):
        assert [each.utterances[0].text for each in transcripts] == texts
        assert [" ".join(word.text for word in each.utterances[0].words) for each in transcripts] == texts
        assert [each.utterances[0].text for each in before] == texts
        assert {each.language for each in transcripts} == {language}
        for each, chunk in zip(transcripts, chunks, strict=True):
            assert each.utterances[0].start_s == chunk.start_s
            assert each.utterances[0].end_s == pytest.approx(chunk.end_s, abs=1e-3)
    audio, chunks, _, _ = jobs["korean"]
    probabilities = await transcriber.detect_language(audio, chunks[0], "korean")
    assert probabilities["ko"] > 0.9
    transcriber.check_health()
    assert repr(transcriber) == "Transcriber(whisperx-asr)"


async def test_a_chunk_has_its_jobs_vocabulary(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none where the job, perhaps of the release before, gives none."""

    class Listening(Engine):
        def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
            self.vocabularies = [chunk.vocabulary for chunk in chunks]
            return super().transcribe(chunks)

    engine = Listening()
    monkeypatch.setattr(deployment, "create", lambda *_: engine)
    transcriber = start(WHISPER)
    audio, chunk = np.zeros(SAMPLE_RATE_HZ, np.int16), Span(start_s=0, end_s=1)
    await transcriber.transcribe(audio, chunk, "en", "job", [chunk], vocabulary=["Sejong-daero", "GraphQL"])
    assert engine.vocabularies == [("Sejong-daero", "GraphQL")]
    await transcriber.transcribe(audio, chunk, "en", "job")
    assert engine.vocabularies == [()]


async def test_chunks_that_wait_together_are_computed_together(
    start: Any, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve chunks of two jobs take full batches of the configured size."""
    engine = Engine()
    monkeypatch.setattr(deployment, "create", lambda *_: engine)
    transcriber = start(WHISPER.model_copy(update={"batch_size": 4}))
    audio, span = np.zeros(16_000, np.int16), Span(start_s=0, end_s=1)
    await asyncio.gather(*(transcriber.transcribe(audio, span, "ko", str(i % 2)) for i in range(12)))
    assert counted.values("batch_fill", stage="transcriber") == [1, 1, 1]
    assert engine.batches == [4, 4, 4]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("/secret/path"), TranscriptionError),
        (RuntimeError("CUDA failed with error out of memory"), DeviceError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceError),
    ],
    ids=str,
)
async def test_what_fails_is_the_chunk_or_the_replica(
    start: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    """The engine's error ends the job, its words stay private; a lost device ends the replica, not the job."""
    monkeypatch.setattr(deployment, "create", lambda *_: Engine(error))
    transcriber = start(WHISPER)
    with pytest.raises(raised) as failure:
        await transcriber.transcribe(np.zeros(16_000, np.int16), Span(start_s=0, end_s=1), "ko", "job")
    assert str(error) not in str(failure.value)
    assert failure.value.__cause__ is error
    if raised is DeviceError:
        with pytest.raises(DeviceError):
            transcriber.check_health()
    else:
        transcriber.check_health()
