"""Speech to text as a job has it, without Ray: the stages' engines in the order of serve_app/jobs/pipeline.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from deployments.speech_detector import engine as speech_detector
from deployments.speech_detector.chunks import join_spans, speech_share, with_margins
from deployments.speech_detector.config import PIECE_S, SpeechDetectorConfig
from deployments.transcriber import engine as transcriber
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import chunks_of
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript, joined, pieces
from serve_app.jobs.languages import planned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio


class Ears:
    """The speech detector and the recogniser whose model lies in the folder `model`, on one thread of the CPU."""

    def __init__(self, model: str) -> None:
        self._detector = speech_detector.create(SpeechDetectorConfig())
        self._config = TranscriberConfig(engine="whisperx", model=model, device="cpu", threads=1)
        self._recognizer = transcriber.create(self._config)

    def hear(self, audio: Audio) -> str:
        """The text of `audio`, each part in the language that is found."""
        todo = pieces(len(audio) / SAMPLE_RATE_HZ, PIECE_S)
        speech = join_spans([self._detector.detect(audio, piece) for piece in todo])
        chunks = self._chunks(audio, speech)
        heard: list[Transcript] = []
        for first in range(0, len(chunks), self._config.batch_size):
            answers = self._recognizer.transcribe(chunks[first : first + self._config.batch_size])
            heard += [answer for answer in answers if isinstance(answer, Transcript)]
        assert len(heard) == len(chunks)
        return joined(utterance.text for each in heard for utterance in each.utterances)

    def _chunks(self, audio: Audio, speech: Sequence[Span]) -> list[transcriber.Chunk]:
        max_s = self._config.max_chunk_s
        plan = asyncio.run(planned(speech, max_s, lambda spans, brief: self._languages(audio, spans, brief=brief)))
        found = with_margins(chunks_of(plan.passages, speech, max_s), max_s) if plan else []
        return [
            transcriber.Chunk(
                audio=span.of(audio),
                start_s=span.start_s,
                language=span.language,
                speech_share=speech_share(span, speech),
                speech=tuple(each for each in speech if each.overlap_s(span) > 0),
            )
            for span in found
        ]

    async def _languages(self, audio: Audio, spans: Sequence[Span], *, brief: bool) -> list[dict[str, float]]:
        chunks = [
            transcriber.Chunk(audio=span.of(audio), start_s=span.start_s, language=transcriber.AUTO) for span in spans
        ]
        found = self._recognizer.detect(chunks, brief=brief)
        return [each for each in found if not isinstance(each, Exception)]
