"""The speech that the small models learn from: who says what, how fast and how high; kept in a folder.

Seeded: the same synthesizers say the same. What tests/data says is never in it, nor are the voices in `UNHEARD`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.models.recipe.sentences import english, kept_for_tests, korean, one_of
from tests.models.recipe.synthesizers import RATE_HZ, Espeak, Flite, Line, Speech, festival

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.models.recipe.sentences import Sentence

UNHEARD = ("flite rms", "espeak en-us+Annie", "espeak en-gb-x-rp+max")
"""Voices that the tests alone hear."""

ESPEAK_ENGLISH, ESPEAK_KOREAN = 3300, 900
FLITE = {"kal16": 650, "awb": 650, "slt": 650, "kal": 150}
FESTIVAL = {"kal_diphone": 400, "cmu_us_slt_arctic_hts": 400, "ked_diphone": 400}
"""Sentences of each voice."""
ACCENTS = ("en-us", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")
VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt4"),
    *("Alex", "Andy", "Alicia", "adam", "belinda", "benjamin", "david", "Gene", "linda", "Michael", "norbert"),
    *("paul", "steph", "victor", "travis", "shelby", "edward", "Hugo", "Diogo", "sandro", "Mario", "michel"),
)
WORDS_PER_MIN = (120, 195)
PITCH_PERCENT = (25, 75)
STRETCH = (0.8, 1.25)
KAL_PITCH_HZ = (85.0, 130.0)
ESPEAK_SPEED = (0.92, 1.08)
SPEED = (0.85, 1.18)
"""Of flite and festival, which have few voices: a changed speed moves pitch and formants, as another throat would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A sentence as a voice said it.

    `samples`: shape (n,), int16, 16 kHz. `times_s`: a start and an end per word, None where the synthesizer cannot
    tell them.
    """

    words: Sentence
    language: str
    voice: str
    times_s: tuple[tuple[float, float], ...] | None
    samples: np.ndarray


def synthesize(*, share: float = 1.0, seed: int = 0) -> list[Utterance]:
    """Everything, a minute or two of work; `share` of it where less is enough."""
    draw = np.random.default_rng(seed)
    said = [*_by_espeak(draw, share), *_by_flite(draw, share), *_by_festival(draw, share)]
    missing = sum(each.times_s is None for each in said)
    hours = sum(len(each.samples) for each in said) / RATE_HZ / 3600
    print(f"{len(said)} utterances, {hours:.2f} h, {missing} without word times", flush=True)
    return said


def kept_in(folder: Path, *, share: float = 1.0, seed: int = 0) -> list[Utterance]:
    """The corpus of `folder`, synthesized there if it is not there yet: its samples stay on the disk."""
    if not (folder / "corpus.json").exists():
        save(folder, synthesize(share=share, seed=seed))
    return load(folder)


def save(folder: Path, said: list[Utterance]) -> None:
    """Write corpus.npy, all samples in a row, and corpus.json."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "corpus.npy", np.concatenate([each.samples for each in said]))
    rows = [asdict(each) | {"samples": len(each.samples)} for each in said]
    (folder / "corpus.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> list[Utterance]:
    """What `save` wrote."""
    rows = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    samples = np.load(folder / "corpus.npy", mmap_mode="r")
    ends = np.cumsum([row["samples"] for row in rows])
    return [_loaded(row, samples[end - row["samples"] : end]) for row, end in zip(rows, ends, strict=True)]


def _loaded(row: dict[str, object], samples: np.ndarray) -> Utterance:
    times = row["times_s"]
    return Utterance(
        words=tuple(row["words"]),
        language=str(row["language"]),
        voice=str(row["voice"]),
        times_s=None if times is None else tuple((start, end) for start, end in times),
        samples=samples,
    )


def _by_espeak(draw: np.random.Generator, share: float) -> Iterator[Utterance]:
    espeak = Espeak()
    for language, count in (("en", ESPEAK_ENGLISH), ("ko", ESPEAK_KOREAN)):
        for _ in range(_part(count, share)):
            variant = one_of(draw, VARIANTS)
            accent = one_of(draw, ACCENTS) if language == "en" else language
            voice = f"{accent}+{variant}" if variant else accent
            words = _new(draw, english if language == "en" else korean)
            pace, pitch = (int(draw.integers(*among)) for among in (WORDS_PER_MIN, PITCH_PERCENT))
            speed = draw.uniform(*ESPEAK_SPEED)
            speech = espeak.speak(words, voice, words_per_min=pace, pitch_percent=pitch, speed=speed)
            yield _utterance(words, language, f"espeak {voice}", speech)


def _by_flite(draw: np.random.Generator, share: float) -> Iterator[Utterance]:
    flite = Flite()
    for voice, count in FLITE.items():
        for _ in range(_part(count, share)):
            words = _new(draw, english)
            pitch_hz = draw.uniform(*KAL_PITCH_HZ) if voice.startswith("kal") else None
            stretch, speed = draw.uniform(*STRETCH), draw.uniform(*SPEED)
            speech = flite.speak(words, voice, stretch=stretch * speed, pitch_hz=pitch_hz, speed=speed)
            yield _utterance(words, "en", f"flite {voice}", speech)


def _by_festival(draw: np.random.Generator, share: float) -> Iterator[Utterance]:
    lines = []
    for voice, count in FESTIVAL.items():
        for _ in range(_part(count, share)):
            speed = draw.uniform(*SPEED)
            stretch = draw.uniform(*STRETCH) * speed
            lines.append(Line(words=_new(draw, english), voice=voice, stretch=stretch, speed=speed))
    for line, speech in zip(lines, festival(lines), strict=True):
        yield _utterance(line.words, "en", f"festival {line.voice}", speech)


def _part(count: int, share: float) -> int:
    return max(1, round(count * share))


def _new(draw: np.random.Generator, sentence: Callable[[np.random.Generator], Sentence]) -> Sentence:
    while (words := sentence(draw)) in kept_for_tests():
        pass
    return words


def _utterance(words: Sentence, language: str, voice: str, speech: Speech) -> Utterance:
    assert voice not in UNHEARD
    return Utterance(
        words=words,
        language=language,
        voice=voice,
        times_s=tuple((word.start_s, word.end_s) for word in speech.words) or None,
        samples=speech.samples.clip(-32000, 32000).astype(np.int16),
    )
