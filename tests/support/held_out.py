"""The recordings of tests/data/held_out, heard by the production engines as a job is, and what they got wrong.

The stages follow each other as in serve_app/pipeline/pipeline.py, with its own functions between them; only Ray is left
out. Knows the small models of tests/models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import soundfile
from scipy.optimize import linear_sum_assignment

from deployments.aligner import registry as aligner
from deployments.aligner.config import AlignerConfig
from deployments.aligner.protocol import AlignItem
from deployments.diarizer import registry as diarizer
from deployments.diarizer.config import PIECE_S as DIARIZATION_PIECE_S
from deployments.diarizer.config import DiarizerConfig
from deployments.speech_detector import registry as speech_detector
from deployments.speech_detector.chunks import cut_chunks, join_spans, speech_share
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.transcriber import registry as transcriber
from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.passages import vote, voters
from deployments.transcriber.protocol import Chunk
from deployments.types import SAMPLE_RATE_HZ, Transcript, Turn, Word, pieces
from serve_app.pipeline.segments import segments_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Segment
    from deployments.warnings import ResultWarning

RECORDINGS = Path(__file__).parents[1] / "data" / "held_out"
MODELS = Path(__file__).parents[1] / "models"
MAX_CHUNK_S = 10.0
"""The small recogniser has learned little of longer chunks, as tests/models/README.md says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidWord(Word):
    """A word as it was said."""

    speaker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Sound, read-only as Ray hands it out, and the truth about it. `turns`: seconds and voice of each sentence."""

    name: str
    language: str
    audio: Audio
    words: tuple[SaidWord, ...]
    turns: tuple[tuple[float, float, str], ...]

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.audio) / SAMPLE_RATE_HZ

    @property
    def voices(self) -> int:
        """How many there are."""
        return len({voice for _, _, voice in self.turns})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the graph makes of a recording."""

    language: str
    turns: Sequence[Turn]
    segments: Sequence[Segment]
    warnings: tuple[ResultWarning, ...]

    @property
    def words(self) -> list[tuple[Word, int]]:
        """Each with its speaker."""
        return [(word, segment.speaker) for segment in self.segments for word in segment.words]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How it differs from the truth.

    `starts_s`, `ends_s`: shape (words heard right,), how much later each begins and ends than the synthesizer says.
    `right_speaker`: of those words, the share given to their voice, voices and speakers matched as is best.
    """

    words: int
    errors: int
    starts_s: np.ndarray
    ends_s: np.ndarray
    right_speaker: float

    @property
    def error_rate(self) -> float:
        """Word errors over words."""
        return self.errors / self.words


class Graph:
    """The stages, loaded. `diarizer_model` is a pipeline's folder; `recognizer_model` another one than the tests'."""

    def __init__(self, diarizer_model: Path, recognizer_model: Path = MODELS / "asr") -> None:
        model = str(MODELS / "aligner")
        self._detector = speech_detector.create(SpeechDetectorConfig())
        self._recognizer = transcriber.create(
            TranscriberConfig(engine="whisperx", model=str(recognizer_model), device="cpu", threads=1),
            timed_elsewhere=frozenset({"en", "ko"}),
        )
        self._aligner = aligner.create(AlignerConfig(engine="ctc", models={"en": model, "ko": model}))
        self._diarizer = diarizer.create(DiarizerConfig(engine="pyannote", model=str(diarizer_model)))

    def hear(self, recording: Recording, max_chunk_s: float = MAX_CHUNK_S) -> Heard:
        """As a job without wishes: its language and the number of its speakers are found."""
        audio = recording.audio
        language, transcripts = self._transcribe(audio, max_chunk_s)
        parts = list(pieces(recording.duration_s, DIARIZATION_PIECE_S))
        segmentations = [self._diarizer.segment(audio, part) for part in parts]
        turns = self._diarizer.cluster(segmentations, [self._diarizer.embed(audio, each) for each in segmentations])
        return Heard(
            language=language,
            turns=turns,
            segments=segments_of((heard for each in transcripts for heard in each.utterances), turns),
            warnings=tuple(warning for each in transcripts for warning in each.warnings),
        )

    def _transcribe(self, audio: Audio, max_chunk_s: float) -> tuple[str, list[Transcript]]:
        todo = pieces(len(audio) / SAMPLE_RATE_HZ, DETECTION_PIECE_S)
        speech = join_spans([self._detector.detect(audio, piece) for piece in todo])
        spans = cut_chunks(speech, max_chunk_s)
        asked = voters(spans)
        chunks = [Chunk(audio=span.of(audio), start_s=span.start_s, language="auto") for span in asked]
        probabilities = [each for each in self._recognizer.detect(chunks) if not isinstance(each, Exception)]
        found = vote(probabilities, [span.duration_s for span in asked])
        assert found is not None
        chunks = [
            Chunk(
                audio=span.of(audio),
                start_s=span.start_s,
                language=found[0],
                speech_share=speech_share(span, speech),
                speech=tuple(speech),
            )
            for span in spans
        ]
        heard = _answers(self._recognizer.transcribe(chunks))
        aligned = self._aligner.align([AlignItem(audio=audio, transcript=each) for each in heard])
        return found[0], _answers(aligned)


def recordings() -> list[Recording]:
    """All of them, by name."""
    return [recording(path.stem) for path in sorted(RECORDINGS.glob("*.json"))]


def recording(name: str) -> Recording:
    """One of them."""
    told = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    audio, rate_hz = soundfile.read(RECORDINGS / f"{name}.ogg", dtype="int16")
    assert rate_hz == SAMPLE_RATE_HZ
    audio.flags.writeable = False
    said = told["utterances"]
    return Recording(
        name=name,
        language=told["language"],
        audio=audio,
        words=tuple(SaidWord(speaker=each["speaker"], **word) for each in said for word in each["words"]),
        turns=tuple((e["words"][0]["start_s"], e["words"][-1]["end_s"], e["speaker"]) for e in said),
    )


def score(said: Sequence[SaidWord], heard: Sequence[tuple[Word, int]]) -> Score:
    """Word errors without case and full stops; times and speakers of the words that are right."""
    reference, hypothesis = [word.text for word in said], [plain(word.text) for word, _ in heard]
    found = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    pairs = [
        (said[part.ref_start_idx + i], *heard[part.hyp_start_idx + i])
        for part in found.alignments[0]
        if part.type == "equal"
        for i in range(part.ref_end_idx - part.ref_start_idx)
    ]
    return Score(
        words=len(said),
        errors=found.substitutions + found.deletions + found.insertions,
        starts_s=np.array([word.start_s - true.start_s for true, word, _ in pairs]),
        ends_s=np.array([word.end_s - true.end_s for true, word, _ in pairs]),
        right_speaker=_right_speaker([(true.speaker, speaker) for true, _, speaker in pairs]),
    )


def plain(text: str) -> str:
    """Lower case, without full stops."""
    return text.lower().strip(".")


def _right_speaker(pairs: Sequence[tuple[str, int]]) -> float:
    voices, speakers = (sorted(set(side)) for side in zip(*pairs, strict=True))
    counts = np.array([[pairs.count((voice, speaker)) for speaker in speakers] for voice in voices])
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(pairs))


def _answers(answers: Sequence[Transcript | Exception]) -> list[Transcript]:
    """All of them; raises the first failure."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in answers if isinstance(answer, Transcript)]
