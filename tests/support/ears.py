"""Speech to text as a job has it, without Ray: the stages' engines in the order of serve_app/jobs/pipeline.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.speech_detector import engine as speech_detector
from deployments.speech_detector.chunks import cut_chunks, join_spans, speech_share
from deployments.speech_detector.config import PIECE_S, SpeechDetectorConfig
from deployments.transcriber import engine as transcriber
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.language import vote, voters
from deployments.types import SAMPLE_RATE_HZ, Transcript, joined, pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is heard in a recording."""

    language: str
    transcripts: Sequence[Transcript]

    @property
    def text(self) -> str:
        """All of it."""
        return joined(utterance.text for each in self.transcripts for utterance in each.utterances)


class Ears:
    """The speech detector and the recogniser whose model lies in the folder `model`, on one thread of the CPU."""

    def __init__(self, model: str) -> None:
        self._detector = speech_detector.create(SpeechDetectorConfig())
        self._config = TranscriberConfig(engine="whisperx", model=model, device="cpu", threads=1)
        self._recognizer = transcriber.create(self._config)

    def hear(self, audio: Audio) -> Heard:
        """What is said in `audio`, its language found by the vote."""
        todo = pieces(len(audio) / SAMPLE_RATE_HZ, PIECE_S)
        speech = join_spans([self._detector.detect(audio, piece) for piece in todo])
        spans = cut_chunks(speech, self._config.max_chunk_s)
        language = self._language(audio, spans)
        chunks = [
            transcriber.Chunk(
                audio=span.of(audio), start_s=span.start_s, language=language, speech_share=speech_share(span, speech)
            )
            for span in spans
        ]
        transcripts: list[Transcript] = []
        for first in range(0, len(chunks), self._config.batch_size):
            answers = self._recognizer.transcribe(chunks[first : first + self._config.batch_size])
            transcripts += [answer for answer in answers if isinstance(answer, Transcript)]
        assert len(transcripts) == len(chunks)
        return Heard(language=language, transcripts=transcripts)

    def _language(self, audio: Audio, spans: Sequence[Span]) -> str:
        asked = voters(spans)
        chunks = [
            transcriber.Chunk(audio=span.of(audio), start_s=span.start_s, language=transcriber.AUTO) for span in asked
        ]
        probabilities = [each for each in self._recognizer.detect(chunks) if not isinstance(each, Exception)]
        found = vote(probabilities, [span.duration_s for span in asked])
        return transcriber.AUTO if found is None else found[0]
