"""Judges what the decoder wrote for one chunk, and cuts what nobody said. Whisper writes text for silence, too.

The measures are Whisper's own (Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022,
section 4.5): compression ratio, mean log-probability, probability of no speech. The speech detector's share of speech
is added to the last one. Plain functions; knows nothing of the model.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import without_hallucinated_phrases
from deployments.hallucinations.recitations import is_recited
from deployments.hallucinations.repetitions import (
    cut_letter_loops,
    cut_loops,
    is_speakable,
    is_too_fast,
    looped_phrases,
)
from deployments.warnings import WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.hallucinations.config import HallucinationThresholds

GUESSING: Final = 0.5
"""A text that was sampled at a higher temperature is a guess. Whisper does not condition further text on one either."""

_WORD: Final = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What the decoder wrote for one chunk, and how sure it was."""

    text: str
    average_logprob: float
    """Mean natural logarithm of the tokens' probabilities."""
    no_speech: float
    """The model's probability that the chunk holds no speech, 0-1."""
    temperature: float = 0.0
    """At which the text was sampled; 0 for the likeliest text."""
    repeated: frozenset[str] = frozenset()
    """Phrases that loop in every text that was sampled for the chunk."""

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities, 0-1."""
        return min(1.0, math.exp(self.average_logprob))


class Verdict(Enum):
    """What a hypothesis is worth."""

    GOOD = auto()
    DOUBTFUL = auto()  # to be decoded again
    SILENT = auto()  # nobody speaks: decoding again would only hallucinate something else


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredText:
    """What is left of a hypothesis' text, possibly nothing, and a warning for each cut and each doubt."""

    text: str
    warnings: tuple[WarningCode, ...] = ()


def compression_ratio(text: str) -> float:
    """Return the size of `text` in UTF-8 over its compressed size: about 1.5 for speech, more for repetition."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))


def judge(hypothesis: Hypothesis, speech_share: float, thresholds: HallucinationThresholds) -> Verdict:
    """Judge `hypothesis`. `speech_share`: the share of the chunk that the speech detector found to be speech, 0-1.

    A text is silent as in Whisper: the model finds no speech and its text is unlikely. It is also silent where the
    model and the speech detector both find next to no speech, since hallucinated phrases are likely texts.
    """
    if not hypothesis.text:
        return Verdict.GOOD
    unlikely = hypothesis.average_logprob < thresholds.average_logprob
    if hypothesis.no_speech > thresholds.no_speech and (unlikely or speech_share < thresholds.little_speech):
        return Verdict.SILENT
    if unlikely or compression_ratio(hypothesis.text) > thresholds.compression_ratio:
        return Verdict.DOUBTFUL
    return Verdict.GOOD


def best(hypotheses: Sequence[Hypothesis], thresholds: HallucinationThresholds) -> Hypothesis:
    """Return the likeliest of doubtful `hypotheses` for one chunk, if possible one that does not repeat itself.

    `repeated` of the answer has the phrases that loop in all of them: a hallucinated loop changes from sample to
    sample, one that is in the sound does not.
    """
    varied = [each for each in hypotheses if compression_ratio(each.text) <= thresholds.compression_ratio]
    chosen = max(varied or hypotheses, key=lambda each: each.average_logprob)
    return replace(chosen, repeated=frozenset.intersection(*(looped_phrases(each.text) for each in hypotheses)))


def filtered(
    hypothesis: Hypothesis,
    speech_share: float,
    thresholds: HallucinationThresholds,
    *,
    speech_s: float,
    vocabulary: Sequence[str] = (),
) -> FilteredText:
    """Cut from the final `hypothesis` what nobody said. `speech_s`: seconds of detected speech in the chunk.

    Of a tenth of a second of speech Whisper makes "Thank you very much.": an unsure text that nobody can say so fast.
    A list of terms of the `vocabulary` needs a sure text and enough speech: Whisper copies it over noise.
    """
    if not _WORD.search(hypothesis.text):
        return FilteredText(text="")
    verdict = judge(hypothesis, speech_share, thresholds)
    little_speech = speech_share < thresholds.little_speech
    unsure = verdict is Verdict.DOUBTFUL or little_speech or hypothesis.no_speech > thresholds.no_speech
    recited = is_recited(hypothesis.text, vocabulary) and (unsure or is_too_fast(hypothesis.text, speech_s))
    if verdict is Verdict.SILENT or (verdict is Verdict.DOUBTFUL and little_speech) or recited:
        return FilteredText(text="", warnings=(WarningCode.SILENT_TEXT_DROPPED,))
    text, warnings = " ".join(hypothesis.text.split()), []
    cut = cut_letter_loops(text) if _is_repeated(hypothesis, verdict, speech_s, thresholds) else cut_loops(text)
    if cut != text:
        text = cut
        warnings.append(WarningCode.LOOP_CUT)
    if little_speech or hypothesis.no_speech > thresholds.no_speech:
        spoken = without_hallucinated_phrases(text, speech_s=speech_s)
        if spoken != text:
            text = spoken
            warnings.append(WarningCode.PHANTOM_DROPPED)
    guessed = verdict is Verdict.DOUBTFUL or hypothesis.temperature > GUESSING
    if text and (guessed or hypothesis.no_speech > thresholds.no_speech):
        if is_too_fast(text, speech_s):
            return FilteredText(text="", warnings=(*warnings, WarningCode.SILENT_TEXT_DROPPED))
        warnings.append(WarningCode.SPEECH_UNCERTAIN)
    return FilteredText(text=text, warnings=tuple(warnings))


def _is_repeated(
    hypothesis: Hypothesis, verdict: Verdict, speech_s: float, thresholds: HallucinationThresholds
) -> bool:
    """Return whether somebody really says again and again what loops in the text.

    The text must be likely, fit into the time, and loop in all samples or be good at once.
    """
    likely = hypothesis.average_logprob >= thresholds.average_logprob and hypothesis.no_speech <= thresholds.no_speech
    in_all_samples = looped_phrases(hypothesis.text) <= hypothesis.repeated
    believed = in_all_samples or (verdict is Verdict.GOOD and hypothesis.temperature <= GUESSING)
    return likely and believed and is_speakable(hypothesis.text, speech_s)
