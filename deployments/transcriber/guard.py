"""Tells what was heard from what was invented. Whisper, when it hears no speech, writes some all the same.

Whisper's own measures (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section
4.5): how well the text compresses, how likely it is, how probable it is that nobody speaks. The detector's word on the
last one is added. Plain functions; knows nothing of the model.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from deployments.transcriber.phantoms import without_phantoms
from deployments.warnings import WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.config import Guard

MAX_PHRASE_WORDS: Final = 20
REPEATS: Final = 5
"""A phrase that comes so often in a row is a loop; people say "no no no" and "네 네 네", too."""
LETTER_REPEATS: Final = 12
"""The same for letters inside a word, without digits: a number may have many zeros."""

GUESSING: Final = 0.5
"""Drawn at a temperature above this, a text is a guess, though a likely one: Whisper builds no further text on it."""

_LETTER_LOOP: Final = re.compile(r"([^\W\d]{1,8}?)\1{" + str(LETTER_REPEATS - 1) + ",}")
_WORD: Final = re.compile(r"\w")
_MARKS: Final = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What the model wrote for one chunk, and how sure it was."""

    text: str
    average_logprob: float
    """Natural logarithm of a token's probability, mean over the text."""
    no_speech: float
    """The model's probability that the chunk holds no speech."""
    temperature: float = 0.0
    """At which it was drawn; 0 for the likeliest text."""

    @property
    def confidence(self) -> float:
        """0-1: the geometric mean of the tokens' probabilities."""
        return min(1.0, math.exp(self.average_logprob))


class Verdict(Enum):
    """What a hypothesis is worth."""

    GOOD = auto()
    DOUBTFUL = auto()  # to be tried again
    SILENT = auto()  # nobody spoke: trying again would only invent something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is left of a hypothesis. `text` may be empty; `dropped` counts what was left out of it."""

    text: str
    warnings: tuple[WarningCode, ...] = ()
    dropped: int = 0


def compression_ratio(text: str) -> float:
    """Size of `text` in UTF-8 over its compressed size: about 1.5 for speech, large where it repeats itself."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def judge(hypothesis: Hypothesis, speech_share: float, guard: Guard) -> Verdict:
    """Whether to believe `hypothesis`; `speech_share` is the share of the chunk that the detector heard as speech.

    Silent as in Whisper (probably no speech, and an unlikely text), or where the detector hears hardly any speech
    either: then a likely text is no proof, since the phantom phrases are likely texts.
    """
    if not hypothesis.text:
        return Verdict.GOOD
    unlikely = hypothesis.average_logprob < guard.average_logprob
    if hypothesis.no_speech > guard.no_speech and (unlikely or speech_share < guard.little_speech):
        return Verdict.SILENT
    if unlikely or compression_ratio(hypothesis.text) > guard.compression_ratio:
        return Verdict.DOUBTFUL
    return Verdict.GOOD


def best(tries: Sequence[Hypothesis], guard: Guard) -> Hypothesis:
    """Of hypotheses that are all doubtful, the likeliest that does not repeat itself; else the likeliest."""
    varied = [each for each in tries if compression_ratio(each.text) <= guard.compression_ratio]
    return max(varied or tries, key=lambda each: each.average_logprob)


def keep(hypothesis: Hypothesis, speech_share: float, guard: Guard) -> Kept:
    """What of the final `hypothesis` goes into the transcript."""
    if not _WORD.search(hypothesis.text):
        return Kept(text="")
    verdict = judge(hypothesis, speech_share, guard)
    little_speech = speech_share < guard.little_speech
    if verdict is Verdict.SILENT or (verdict is Verdict.DOUBTFUL and little_speech):
        return Kept(text="", warnings=(WarningCode.SILENT_TEXT_DROPPED,), dropped=1)
    text, warnings, dropped = " ".join(hypothesis.text.split()), [], 0
    cut = cut_loops(text)
    if cut != text:
        text, dropped = cut, dropped + 1
        warnings.append(WarningCode.LOOP_CUT)
    if little_speech or hypothesis.no_speech > guard.no_speech:
        spoken = without_phantoms(text)
        if spoken != text:
            text, dropped = spoken, dropped + 1
            warnings.append(WarningCode.PHANTOM_DROPPED)
    guessed = verdict is Verdict.DOUBTFUL or hypothesis.temperature > GUESSING
    if text and (guessed or hypothesis.no_speech > guard.no_speech):
        warnings.append(WarningCode.SPEECH_UNCERTAIN)
    return Kept(text=text, warnings=tuple(warnings), dropped=dropped)


def cut_loops(text: str) -> str:
    """`text` with each phrase that comes `REPEATS` times in a row, or more often, written once.

    Case and punctuation do not count; what is left of a loop that the text's end cuts off goes, too.
    """
    words = [_LETTER_LOOP.sub(r"\1", word) for word in text.split()]
    plain = [_MARKS.sub("", word).casefold() for word in words]
    kept: list[str] = []
    at = 0
    while at < len(words):
        size, end = _loop(plain, at)
        kept += words[at : at + size]
        at = end
    return " ".join(kept)


def _loop(words: Sequence[str], at: int) -> tuple[int, int]:
    """Length of the phrase that begins at `at`, and where its repetitions end; without a loop, one word."""
    for size in range(1, min(MAX_PHRASE_WORDS, (len(words) - at) // REPEATS) + 1):
        end = at + size
        while end < len(words) and words[end] == words[end - size]:
            end += 1
        repeats, rest = divmod(end - at, size)
        if repeats >= REPEATS:
            return size, end if end == len(words) else end - rest
    return 1, at + 1
