"""The embedded recogniser: CMU PocketSphinx 5 with the US English model in its wheel.

Knows nothing of Ray or jobs. The model is from read and broadcast speech: clear speech it gets mostly right, telephone
conversation mostly wrong (figures: docs/benchmarks.md). It runs on one core, and holds Python's lock for a whole chunk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pocketsphinx import Decoder

from deployments.sound import is_quiet
from deployments.transcriber.config import languages
from deployments.transcriber.engine import AUTO, Chunk
from deployments.transcriber.spelling import written
from deployments.types import SAMPLE_RATE_HZ, Transcript, Utterance, Word
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deployments.transcriber.config import TranscriberConfig
    from deployments.types import Audio

FRAME_S: Final = 0.01
PAUSE_S: Final = 0.5
"""So long a silence between two words begins a new utterance."""
MAX_WORD_S: Final = 2.0
"""A "word" longer than this is a hum or a constant tone."""
LANGUAGE_UNKNOWN: Final = ResultWarning(code=WarningCode.LANGUAGE_ASSUMED, language="en")

FRONT_END: Final = {"remove_noise": False}
"""Noise tracking costs 14 points of word errors on telephone speech and wins nothing on clean speech (measured)."""
SEARCH: Final = {"maxhmmpf": 3000, "fwdflat": False, "bestpathlw": 7.5}
"""A tenth of the default's models per frame, one pass instead of two: half of the time, no more errors (measured)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stretch of the decoder's best path, in frames of 10 ms; `probability` is its posterior."""

    entry: str
    first_frame: int
    last_frame: int
    probability: float


class PocketsphinxRecognizer:
    """One decoder, used by one thread at a time."""

    def __init__(self, config: TranscriberConfig) -> None:
        self._languages = languages(config)
        self._lock = threading.Lock()
        self._decoder: Any = Decoder(loglevel="FATAL", **SEARCH)
        for name, value in FRONT_END.items():
            # Only here do they count: the model's own feat.params overrules what the constructor is given.
            self._decoder.config[name] = value

    def transcribe(self, chunks: Sequence[Chunk]) -> list[Transcript | Exception]:
        """See `Recognizer`."""
        return [self._try(chunk) for chunk in chunks]

    def detect(self, chunks: Sequence[Chunk], *, brief: bool = False) -> list[dict[str, float] | Exception]:
        """See `Recognizer`: this one knows a single language and cannot tell whether it hears it."""
        del brief
        return [{} for _ in chunks]

    def _try(self, chunk: Chunk) -> Transcript | Exception:
        try:
            return self._transcribe(chunk)
        except Exception as error:  # noqa: BLE001  a failure is this chunk's answer and must not cost the others theirs
            return error

    def _transcribe(self, chunk: Chunk) -> Transcript:
        if chunk.language not in {AUTO, *self._languages}:
            raise ValueError(f"language {chunk.language!r} is not one of {sorted(self._languages)}")
        end_s = chunk.start_s + len(chunk.audio) / SAMPLE_RATE_HZ
        words = timed_words(self._decode(chunk.audio), start_s=chunk.start_s, end_s=end_s)
        return Transcript(
            language="en",
            utterances=tuple(map(_utterance, split_at_pauses(words))),
            warnings=(LANGUAGE_UNKNOWN,) if chunk.language == AUTO else (),
        )

    def _decode(self, audio: Audio) -> list[Entry]:
        """The decoder's best path through `audio`, shape (samples,)."""
        if is_quiet(audio):
            return []
        with self._lock:
            # A fresh front end: without it, what it tracked in the last chunk colours this one.
            self._decoder.reinit_feat(self._decoder.config)
            self._decoder.start_utt()
            try:
                self._decoder.process_raw(audio.tobytes(), no_search=False, full_utt=True)
            finally:
                self._decoder.end_utt()
            return [Entry(s.word, s.start_frame, s.end_frame, s.prob) for s in self._decoder.seg() or ()]


def timed_words(path: Iterable[Entry], *, start_s: float, end_s: float) -> Iterator[Word]:
    """The words of `path`, timed from `start_s` and kept before `end_s`, without what is no word."""
    for step in path:
        text = written(step.entry)
        word_start_s = start_s + step.first_frame * FRAME_S
        word_end_s = min(start_s + (step.last_frame + 1) * FRAME_S, end_s)
        if text is not None and 0 < word_end_s - word_start_s <= MAX_WORD_S:
            confidence = min(max(step.probability, 0.0), 1.0)
            yield Word(start_s=word_start_s, end_s=word_end_s, text=text, probability=confidence)


def split_at_pauses(words: Iterable[Word]) -> list[list[Word]]:
    """Runs of words without a pause between them."""
    runs: list[list[Word]] = []
    for word in words:
        if runs and word.start_s - runs[-1][-1].end_s < PAUSE_S:
            runs[-1].append(word)
        else:
            runs.append([word])
    return runs


def _utterance(words: Sequence[Word]) -> Utterance:
    """`words` as an utterance; its confidence is their mean by duration."""
    total_s = sum(word.duration_s for word in words)
    return Utterance(
        start_s=words[0].start_s,
        end_s=words[-1].end_s,
        text=" ".join(word.text for word in words),
        words=tuple(words),
        confidence=sum((word.probability or 0.0) * word.duration_s for word in words) / total_s,
    )
