"""Conversations with overlaps, back-channels and gaps of a tenth of a second, and what is heard of them.

`tests/data/turn_taking` has the synthesized ones with `heard.json`: the words that Whisper base and
the turns that the embedded diarizer made of them, so that the way from both to segments is scored without any model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from deployments.diarizer.config import PIECE_S as DIARIZATION_PIECE_S
from deployments.speech_detector.chunks import cut_chunks, join_spans, speech_share
from deployments.speech_detector.config import PIECE_S as DETECTION_PIECE_S
from deployments.transcriber.protocol import Chunk
from deployments.types import SAMPLE_RATE_HZ, Transcript, Turn, Utterance, Word, pieces
from serve_app.cli.samples import conversation, read_stm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.diarizer.protocol import DiarizerEngine
    from deployments.speech_detector.protocol import SpeechEngine
    from deployments.transcriber.protocol import Recognizer
    from deployments.types import Audio
    from serve_app.cli.render import ReferenceLine

FOLDER = Path(__file__).parents[1] / "data" / "turn_taking"
HEARD = FOLDER / "heard.json"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A recording with the lines that were said."""

    name: str
    path: Path
    lines: tuple[ReferenceLine, ...]

    @property
    def group(self) -> str:
        """`tune`, `held`, `alike`, `sample`."""
        return self.name.split("_")[0]

    @cached_property
    def audio(self) -> Audio:
        audio, rate_hz = soundfile.read(self.path, dtype="int16")
        assert rate_hz == SAMPLE_RATE_HZ
        audio.flags.writeable = False
        return np.asarray(audio)


def conversations() -> list[Conversation]:
    """The telephone sample of pyannote.audio, then the synthesized ones by name."""
    sample = conversation()
    made = [Conversation(name=stm.stem, path=stm.with_suffix(".ogg"), lines=read_stm(stm)) for stm in _stms()]
    return [Conversation(name="sample", path=sample.audio, lines=sample.reference), *made]


def _stms() -> list[Path]:
    return sorted(FOLDER.glob("*.stm"))


def utterances(audio: Audio, detector: SpeechEngine, recognizer: Recognizer, max_chunk_s: float) -> list[Utterance]:
    """What a job hears of English `audio`, with the words' times."""
    todo = pieces(len(audio) / SAMPLE_RATE_HZ, DETECTION_PIECE_S)
    speech = join_spans([detector.detect(audio, piece) for piece in todo])
    chunks = [
        Chunk(
            audio=span.of(audio),
            start_s=span.start_s,
            language="en",
            speech_share=speech_share(span, speech),
            speech=tuple(speech),
        )
        for span in cut_chunks(speech, max_chunk_s)
    ]
    heard: list[Utterance] = []
    for answer in recognizer.transcribe(chunks):
        assert isinstance(answer, Transcript), answer
        heard += answer.utterances
    return heard


def turns(audio: Audio, diarizer: DiarizerEngine) -> list[Turn]:
    """Who speaks when, as a job finds it."""
    parts = pieces(len(audio) / SAMPLE_RATE_HZ, DIARIZATION_PIECE_S)
    segmentations = [diarizer.segment(audio, piece) for piece in parts]
    return diarizer.cluster(segmentations, [diarizer.embed(audio, each) for each in segmentations])


def as_json(heard: Iterable[Utterance], found: Iterable[Turn]) -> dict[str, Any]:
    """Both in the form of `heard.json`: a list of `[start, end, text]` for each utterance, `[start, end, speaker]`."""
    return {
        "utterances": [[[_ms(word.start_s), _ms(word.end_s), word.text] for word in each.words] for each in heard],
        "turns": [[_ms(turn.start_s), _ms(turn.end_s), turn.speaker] for turn in found],
    }


def _ms(seconds: float) -> float:
    return round(float(seconds), 3)


def heard_before(name: str) -> tuple[Sequence[Utterance], Sequence[Turn]]:
    """What `heard.json` knows of a conversation."""
    told = json.loads(HEARD.read_text(encoding="utf-8"))[name]
    return [_utterance(rows) for rows in told["utterances"]], [
        Turn(start_s=start_s, end_s=end_s, speaker=speaker) for start_s, end_s, speaker in told["turns"]
    ]


def _utterance(rows: Sequence[tuple[float, float, str]]) -> Utterance:
    words = tuple(Word(start_s=start_s, end_s=end_s, text=text) for start_s, end_s, text in rows)
    return Utterance(start_s=words[0].start_s, end_s=words[-1].end_s, text="", words=words)
