"""Recordings whose text is known, real ones and synthesized ones, and how far a transcript is from that text.

Real: pyannote's sample (a telephone call, 30 s), `examples/media/read.ogg` (a LibriVox reader), three Korean sentences
(of the folder that `ML_SERVER_REAL_MODELS` names), and the first two repeated to nine minutes. Synthesized:
`clear.flac`, the dialogues, tests/data/held_out and tests/data/speech, whose sentences are words drawn at random.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np

from deployments.types import SAMPLE_RATE_HZ
from serve_app.cli.samples import conversation, read_stm
from tests.support import real_models
from tests.support.real_models import sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deployments.types import Audio

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "examples" / "media"
DATA = ROOT / "tests" / "data"
REPEATS = 9
GAP_S = 0.5
"""Silence after each recording of a repeated one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Sound, mono at 16 kHz, and what is said in it. `kind` is the row of the table that it counts for."""

    kind: str
    name: str
    language: str
    text: str
    audio: Audio = field(repr=False)

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """So many errors (substitutions, deletions and insertions) in so many words, or characters where it is Korean."""

    errors: int
    of: int

    @property
    def rate(self) -> float:
        return self.errors / self.of

    def __add__(self, other: Count) -> Count:
        return Count(errors=self.errors + other.errors, of=self.of + other.of)


def recordings() -> Iterator[Recording]:
    """All that are here, the real ones first."""
    call, reading = _call(), _of_stm("real, read", MEDIA / "read.ogg")
    yield from (call, reading)
    yield repeated((call, reading))
    yield from _korean()
    yield _of_stm("synthesized, clear", MEDIA / "clear.flac")
    yield from _dialogues()
    yield from _drawn()


def _call() -> Recording:
    sample = conversation()
    text = " ".join(line.text for line in sample.reference)
    return Recording(kind="real, telephone", name="sample", language="en", text=text, audio=sound(sample.audio))


def _of_stm(kind: str, path: Path) -> Recording:
    text = " ".join(line.text for line in read_stm(path.with_suffix(".stm")))
    return Recording(kind=kind, name=path.stem, language="en", text=text, audio=sound(path))


def repeated(parts: Sequence[Recording], times: int = REPEATS) -> Recording:
    """`parts` one after the other, again and again."""
    gap = np.zeros(round(GAP_S * SAMPLE_RATE_HZ), np.int16)
    name = f"{' + '.join(part.name for part in parts)}, {times} times"
    return Recording(
        kind="real, repeated",
        name=name,
        language=parts[0].language,
        text=" ".join(part.text for part in parts * times),
        audio=np.concatenate([each for part in parts for each in (part.audio, gap)] * times),
    )


def _korean() -> Iterator[Recording]:
    folder = real_models.part("korean")
    for path in sorted(folder.glob("*.wav")) if folder else ():
        text = path.with_suffix(".txt").read_text(encoding="utf-8")
        yield Recording(kind="real, Korean (CER)", name=path.stem, language="ko", text=text, audio=sound(path))


def _dialogues() -> Iterator[Recording]:
    for name, text in json.loads((DATA / "dialogues" / "texts.json").read_text(encoding="utf-8")).items():
        audio = sound(DATA / "dialogues" / f"{name}.ogg")
        yield Recording(kind="synthesized, dialogues", name=name, language="en", text=text, audio=audio)


def _drawn() -> Iterator[Recording]:
    kind = "synthesized, words at random"
    for path in sorted((DATA / "held_out").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["language"] == "en":
            text = " ".join(word["text"] for said in told["utterances"] for word in said["words"])
            audio = sound(path.with_suffix(".ogg"))
            yield Recording(kind=kind, name=path.stem, language="en", text=text, audio=audio)
    for name, told in json.loads((DATA / "speech" / "texts.json").read_text(encoding="utf-8")).items():
        if told["language"] == "en":
            audio = sound(DATA / "speech" / name)
            yield Recording(kind=kind, name=Path(name).stem, language="en", text=told["text"], audio=audio)


def count(recording: Recording, heard: str) -> Count:
    """Errors of a transcript, both texts normalized alike: see `normalized`."""
    said, heard = (normalized(text, recording.language) for text in (recording.text, heard))
    if recording.language == "ko":
        found: Any = jiwer.process_characters(said, heard)
        return Count(errors=found.substitutions + found.deletions + found.insertions, of=len(said))
    found = jiwer.process_words(said, heard)
    return Count(errors=found.substitutions + found.deletions + found.insertions, of=len(said.split()))


def normalized(text: str, language: str) -> str:
    """Korean: letters and digits only, no spaces. English: by Whisper's own normalizer.

    That one (Radford et al., appendix C; transformers' `EnglishTextNormalizer`, without its list of British spellings)
    writes numbers and contractions in one way and leaves out case, punctuation and fillers.
    """
    if language == "ko":
        return "".join(letter for letter in text if letter.isalnum())
    return _english()(text)


@cache
def _english() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalizer: Callable[[str], str] = EnglishTextNormalizer({})
    return normalizer
