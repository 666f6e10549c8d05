"""Talk of any length whose every word, time and speaker is known: the sentences of tests/data/alignment, drawn again.

Synthesized by flite and espeak-ng (the committed clips; neither program is needed), of words that the small models of
tests/models know. Sentences come back, voices take turns, and no sentence was in the models' training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.types import SAMPLE_RATE_HZ, Turn
from tests.benchmarks.bench_diarization import Recording, diarization_errors
from tests.support.alignment_clips import clips

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deployments.types import Audio

VOICES = ("flite_slt", "flite_awb", "espeak_max")
"""Two that the small models know and one that the recogniser and the aligner never heard."""
PAUSE_S = (0.0, 0.4)
"""Beside the quarter of a second that each sentence has on either side."""
SEED = 2026
TURN_GAP_S = 0.5
"""Words of one speaker with no more between them are one turn."""

Spoken = tuple[float, float, str]
"""Start and end in seconds, and who spoke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTalk:
    """Audio, its text, and who says each word when."""

    audio: Audio
    text: str
    words: list[Spoken]

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.audio) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far an answer is from the truth."""

    wer: float
    """Word error rate, lower case and without punctuation."""
    der: float
    """Diarization error rate of the words' speakers, collar 0: see `turns_of`."""
    speakers: int
    """So many were found."""

    def __str__(self) -> str:
        return f"{self.wer:.1%} / {self.der:.1%} / {self.speakers}"


def known_talk(duration_s: float) -> KnownTalk:
    """As many sentences as fit into `duration_s`."""
    said = [(each, clip) for clip in clips() if clip.name in VOICES for each in clip.truth]
    draw = np.random.default_rng(SEED)
    audio = np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.int16)
    texts: list[str] = []
    words: list[Spoken] = []
    at = 0
    while True:
        for number in draw.permutation(len(said)):
            sentence, clip = said[number]
            samples = sentence.of(clip.audio)
            if at + len(samples) > len(audio):
                return KnownTalk(audio=audio, text=" ".join(texts), words=words)
            audio[at : at + len(samples)] = samples
            shift_s = at / SAMPLE_RATE_HZ - sentence.start_s
            words += [(word.start_s + shift_s, word.end_s + shift_s, clip.name) for word in sentence.words]
            texts.append(sentence.text)
            at += len(samples) + round(draw.uniform(*PAUSE_S) * SAMPLE_RATE_HZ)


def errors(talk: KnownTalk, text: str, words: Iterable[Spoken]) -> Errors:
    """What is wrong with a transcript of `talk` and its words."""
    import jiwer

    numbers: dict[str, int] = {}
    turns = [
        Turn(start_s=start_s, end_s=end_s, speaker=numbers.setdefault(speaker, len(numbers)))
        for start_s, end_s, speaker in turns_of(words)
    ]
    truth = Recording(name="", audio=talk.audio, reference=turns_of(talk.words))
    return Errors(
        wer=jiwer.wer(plain(talk.text), plain(text)), der=diarization_errors(truth, turns)[0], speakers=len(numbers)
    )


def turns_of(words: Iterable[Spoken]) -> list[Spoken]:
    """Words as turns, by the same rule for the truth and for every answer: small gaps within one speaker are closed."""
    turns: list[Spoken] = []
    for start_s, end_s, speaker in sorted(words):
        if turns and turns[-1][2] == speaker and start_s - turns[-1][1] <= TURN_GAP_S:
            turns[-1] = (turns[-1][0], max(end_s, turns[-1][1]), speaker)
        else:
            turns.append((start_s, end_s, speaker))
    return turns


def plain(text: str) -> str:
    """Lower case, letters and apostrophes only."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def of_server(result: dict[str, Any]) -> tuple[str, list[Spoken]]:
    """Text and words of the server's result."""
    words = [
        (word["start"], word["end"], segment["speaker"]["speaker_id"])
        for segment in result["segments"]
        for word in segment["words"]
    ]
    return result["text"], words


def of_whisperx(segments: Sequence[dict[str, Any]]) -> tuple[str, list[Spoken]]:
    """Text and words of whisperX's segments; words that it gives no time or speaker are nobody's."""
    words = chain.from_iterable(segment.get("words", ()) for segment in segments)
    known = [
        (word["start"], word["end"], word["speaker"]) for word in words if {"start", "end", "speaker"} <= set(word)
    ]
    return " ".join(segment["text"] for segment in segments), known
