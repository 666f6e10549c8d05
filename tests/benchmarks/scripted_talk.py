"""Talk of any length whose script is known: sound, chunks with their texts, and who speaks when.

For engines with random weights: what they say means nothing, so each stage gets from the script what the stage before
it would have said. Made by arithmetic, since a GPU machine may have no library that reads sound files. Knows nothing
of engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np

from deployments.types import SAMPLE_RATE_HZ, Segment, Span, Transcript, Turn, Utterance, Word
from tests.support.synthetic_voice import MANNERS, speak

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.types import Audio

SEED: Final = 2026
VOICES: Final = 3
SENTENCES: Final = 24
"""Different ones; then they come again in another order."""
SENTENCE_S: Final = (2.0, 7.0)
PAUSE_S: Final = 0.3
CHUNK_S: Final = 30.0
WORDS_PER_S: Final = 2.8
WORD_LETTERS: Final = (2, 8)
LANGUAGE: Final = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence(Span):
    """A sentence at its place; `voice` is the number of who says it."""

    text: str
    voice: int


@dataclass(frozen=True)
class Talk:
    """Dense talk of three voices. `audio` is read-only, as stages get it."""

    audio: Audio
    sentences: tuple[Sentence, ...]

    @property
    def duration_s(self) -> float:
        return len(self.audio) / SAMPLE_RATE_HZ

    @cached_property
    def chunks(self) -> list[Utterance]:
        """What the recogniser would hear: sentences put together up to `CHUNK_S`."""
        chunks: list[Utterance] = []
        for sentence in self.sentences:
            if chunks and sentence.end_s - chunks[-1].start_s <= CHUNK_S:
                before = chunks.pop()
                joined = Utterance(
                    start_s=before.start_s, end_s=sentence.end_s, text=f"{before.text} {sentence.text}", confidence=0.9
                )
                chunks.append(joined)
            else:
                chunks.append(
                    Utterance(start_s=sentence.start_s, end_s=sentence.end_s, text=sentence.text, confidence=0.9)
                )
        return chunks

    @property
    def turns(self) -> list[Turn]:
        """What the diarizer would find."""
        turns = []
        for voice, group in groupby(self.sentences, key=lambda sentence: sentence.voice):
            said = list(group)
            turns.append(Turn(start_s=said[0].start_s, end_s=said[-1].end_s, speaker=voice))
        return turns

    @property
    def segments(self) -> list[Segment]:
        """What words with speakers come to: the turns, each as one word for as long as it lasts."""
        return [
            Segment(
                start_s=turn.start_s,
                end_s=turn.end_s,
                speaker=turn.speaker,
                words=(Word(start_s=turn.start_s, end_s=turn.end_s, text="said"),),
            )
            for turn in self.turns
        ]


def heard(chunk: Utterance) -> Transcript:
    """The recogniser's answer for one chunk of a script."""
    return Transcript(language=LANGUAGE, utterances=(chunk,))


def scripted_talk(duration_s: float) -> Talk:
    """Sentences with short pauses until `duration_s` are full."""
    draw = np.random.default_rng(SEED)
    sounds = [speak(draw, MANNERS["neu"], float(draw.uniform(*SENTENCE_S))) for _ in range(SENTENCES)]
    texts = [text(draw, len(sound) / SAMPLE_RATE_HZ) for sound in sounds]
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    sentences: list[Sentence] = []
    at = 0
    for number in shuffled(draw):
        end = at + len(sounds[number])
        if end > len(audio):
            break
        audio[at:end] = sounds[number]
        start_s, end_s = at / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ
        voice = int(draw.integers(VOICES))
        sentences.append(Sentence(start_s=start_s, end_s=end_s, text=texts[number], voice=voice))
        at = end + round(PAUSE_S * SAMPLE_RATE_HZ)
    audio.flags.writeable = False
    return Talk(audio=audio, sentences=tuple(sentences))


def shuffled(draw: np.random.Generator) -> Iterator[int]:
    """The numbers of the sentences, in a new order each time round."""
    while True:
        yield from draw.permutation(SENTENCES).tolist()


def text(draw: np.random.Generator, duration_s: float) -> str:
    """As many words of random letters as people say in that time."""
    letters = np.array(list("etaoinshrdlu"))
    words = [
        "".join(draw.choice(letters, draw.integers(*WORD_LETTERS))) for _ in range(round(duration_s * WORDS_PER_S))
    ]
    return " ".join(words).capitalize() + "."
