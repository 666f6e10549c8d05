"""Tells what was heard from what was invented. Whisper, when it hears no speech, writes some all the same.

Whisper's own measures (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section
4.5): how well the text compresses, how likely it is, how probable it is that nobody speaks. The detector's word on the
last one is added. Plain functions; knows nothing of the model.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import without_phantoms
from deployments.hallucinations.repetitions import cut_letters, cut_loops, fits, looped
from deployments.warnings import WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.transcriber.config import Guard

GUESSING: Final = 0.5
"""Drawn at a temperature above this, a text is a guess, though a likely one: Whisper builds no further text on it."""

_WORD: Final = re.compile(r"\w")


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
    repeated: frozenset[str] = frozenset()
    """Phrases that come again and again in each of several texts that were drawn for the chunk."""

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
    """Of hypotheses that are all doubtful, the likeliest that does not repeat itself; else the likeliest.

    What all of them repeat is marked as such: chance would have changed what is invented.
    """
    varied = [each for each in tries if compression_ratio(each.text) <= guard.compression_ratio]
    chosen = max(varied or tries, key=lambda each: each.average_logprob)
    return replace(chosen, repeated=frozenset.intersection(*(looped(each.text) for each in tries)))


def keep(hypothesis: Hypothesis, speech_share: float, guard: Guard, *, speech_s: float) -> Kept:
    """What of the final `hypothesis` goes into the transcript; the chunk has `speech_s` of detected speech."""
    if not _WORD.search(hypothesis.text):
        return Kept(text="")
    verdict = judge(hypothesis, speech_share, guard)
    little_speech = speech_share < guard.little_speech
    if verdict is Verdict.SILENT or (verdict is Verdict.DOUBTFUL and little_speech):
        return Kept(text="", warnings=(WarningCode.SILENT_TEXT_DROPPED,), dropped=1)
    text, warnings, dropped = " ".join(hypothesis.text.split()), [], 0
    cut = cut_letters(text) if _is_repeated(hypothesis, verdict, speech_s, guard) else cut_loops(text)
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


def _is_repeated(hypothesis: Hypothesis, verdict: Verdict, speech_s: float, guard: Guard) -> bool:
    """Whether what the text repeats is said again and again, as far as time, odds and further draws tell."""
    sure = hypothesis.average_logprob >= guard.average_logprob and hypothesis.no_speech <= guard.no_speech
    drawn = looped(hypothesis.text) <= hypothesis.repeated
    believed = drawn or (verdict is Verdict.GOOD and hypothesis.temperature <= GUESSING)
    return sure and believed and fits(hypothesis.text, speech_s)
