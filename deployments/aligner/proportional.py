"""Word times without the sound: an utterance's time is divided by the letters of its words.

Used where neither an aligner nor the recogniser can time the words. Plain functions over transcripts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from deployments.aligner.vocabulary import words_of
from deployments.types import Word

if TYPE_CHECKING:
    from deployments.types import Transcript, Utterance
    from deployments.warnings import ResultWarning


def interpolated(transcript: Transcript, warning: ResultWarning | None = None) -> Transcript:
    """Return `transcript` with all words timed, and `warning` with the seconds of the utterances that had no words."""
    utterances = tuple(timed(utterance, transcript.language) for utterance in transcript.utterances)
    seconds = sum(each.duration_s for each in transcript.utterances if not each.words)
    warnings = (replace(warning, seconds=seconds),) if warning and seconds else ()
    return replace(transcript, utterances=utterances, warnings=(*transcript.warnings, *warnings))


def timed(utterance: Utterance, language: str) -> Utterance:
    """Return `utterance` with words, each as long as its share of the letters. Existing words stay."""
    texts = words_of(utterance.text, language)
    if utterance.words or not texts:
        return utterance
    shares = list(accumulate((len(text) for text in texts), initial=0))
    edges_s = [utterance.start_s + utterance.duration_s * share / shares[-1] for share in shares[:-1]]
    edges_s.append(utterance.end_s)
    words = (
        Word(start_s=start_s, end_s=end_s, text=text, probability=utterance.confidence, interpolated=True)
        for text, (start_s, end_s) in zip(texts, pairwise(edges_s), strict=True)
    )
    return replace(utterance, words=tuple(words))
