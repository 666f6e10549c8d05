"""Speech to text as a job has it, without Ray: the stages' engines in the order of serve_app/pipeline/pipeline.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.hallucinations.repetitions import drop_repeated_texts
from deployments.hallucinations.unheard_words import drop_unheard
from deployments.speech_detector.chunks import join_spans, speech_share, with_margins
from deployments.speech_detector.config import PIECE_S, SpeechDetectorConfig
from deployments.speech_detector.registry import create as create_detector
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import chunks_of, whole
from deployments.transcriber.protocol import AUTO, Chunk
from deployments.transcriber.registry import create as create_recognizer
from deployments.types import SAMPLE_RATE_HZ, Transcript, joined, pieces
from serve_app.pipeline import languages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.passages import Passage
    from deployments.types import Audio, Span
    from deployments.warnings import ResultWarning


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is heard in a recording. `warnings`: of languages and texts."""

    language: str
    transcripts: Sequence[Transcript]
    warnings: Sequence[ResultWarning] = ()

    @property
    def text(self) -> str:
        """All of it."""
        return joined(utterance.text for each in self.transcripts for utterance in each.utterances)


class Ears:
    """The speech detector and the recogniser whose model lies in the folder `model`, on one thread of the CPU."""

    def __init__(self, model: str) -> None:
        self._detector = create_detector(SpeechDetectorConfig())
        self._config = TranscriberConfig(engine="whisperx", model=model, device="cpu", threads=1)
        self._recognizer = create_recognizer(self._config)

    def hear(self, audio: Audio, language: str = AUTO) -> Heard:
        """What is said in `audio`, in a given language or in those that are found."""
        todo = pieces(len(audio) / SAMPLE_RATE_HZ, PIECE_S)
        speech = join_spans([self._detector.detect(audio, piece) for piece in todo])
        plan = self._plan(audio, speech) if language == AUTO else None
        parts = plan.passages if plan else whole(speech, language)
        max_s = self._config.max_chunk_s
        found = with_margins(chunks_of(parts, speech, max_s), max_s)
        chunks = [_chunk(audio, part, part.language, speech) for part in found]
        transcripts: list[Transcript] = []
        for first in range(0, len(chunks), self._config.batch_size):
            answers = self._recognizer.transcribe(chunks[first : first + self._config.batch_size])
            transcripts += [answer for answer in answers if isinstance(answer, Transcript)]
        assert len(transcripts) == len(chunks)
        told_of = [drop_unheard(each, speech) for each in transcripts]
        kept = drop_repeated_texts(dict(enumerate(told_of)), speech).values()
        told = languages.language_warnings(plan, speech) if plan else []
        return Heard(
            language=plan.language if plan else language,
            transcripts=list(kept),
            warnings=[*told, *(warning for each in kept for warning in each.warnings)],
        )

    def _plan(self, audio: Audio, speech: Sequence[Span]) -> languages.LanguagePlan | None:
        async def hear(spans: Sequence[Span], *, brief: bool) -> list[dict[str, float]]:
            chunks = [_chunk(audio, span, AUTO, speech) for span in spans]
            answers = self._recognizer.detect(chunks, brief=brief)
            return [each for each in answers if isinstance(each, dict)]

        return asyncio.run(languages.plan_languages(speech, self._config.max_chunk_s, hear))


def _chunk(audio: Audio, span: Span | Passage, language: str, speech: Sequence[Span]) -> Chunk:
    return Chunk(
        audio=span.of(audio),
        start_s=span.start_s,
        language=language,
        speech_share=speech_share(span, speech),
        speech=tuple(each for each in speech if each.overlap_s(span) > 0),
    )
