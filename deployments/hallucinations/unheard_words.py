"""The aligner as a second witness: text of which it hears no word was probably invented by the recogniser.

Whisper writes likely sentences over music and noise, with a good conscience; the acoustic model then finds none of
their letters in the sound. Where the speech detector hears nobody, either, single words are doubted, too: a chunk lies
around several stretches of speech, and the recogniser hears what lies between them. Without an acoustic model the
recogniser's own times say where a word lies: of sentences that lie where nobody speaks. Plain functions over
transcripts; knows nothing of models.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import is_phantom
from deployments.sentence_ends import ends_sentence
from deployments.types import Span, joined
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Transcript, Utterance, Word

HEARD_SCORE: Final = 0.03
"""A word's mean probability of its letters. The best word of a true sentence is above 0.2, under noise as loud as it,
too; of what the small recogniser wrote over melodies it was below this in nine of thirteen (with the tests' models)."""
LEAST_WORDS: Final = 3
"""Of fewer words none may be in the acoustic model's reach: rare syllables, names, foreign letters."""
STRAY_SCORE: Final = 0.1
STRAY_S: Final = 0.5
"""So far from all detected speech, and with less than that score, a word is no word."""
STRAY_WORDS: Final = 2
"""A sentence of fewer is doubted only where it is a phantom phrase: the recogniser's attention gives a pause to the
first word behind it."""


def without_unheard(transcript: Transcript) -> Transcript:
    """`transcript` without the utterances of which no word was heard; what goes is counted and told."""
    heard = tuple(each for each in transcript.utterances if not is_unheard(each))
    gone = len(transcript.utterances) - len(heard)
    if not gone:
        return transcript
    return _told(transcript, heard, gone)


def without_strays(transcript: Transcript, speech: Sequence[Span]) -> Transcript:
    """`transcript` without words far from `speech` (all that was detected) that the aligner does not hear.

    And without sentences far from it that only the recogniser knows of.
    """
    kept = tuple(_without_strays(each, speech) for each in transcript.utterances)
    if kept == transcript.utterances:
        return transcript
    gone = sum(len(before.words) != len(after.words) for before, after in zip(transcript.utterances, kept, strict=True))
    return _told(transcript, tuple(each for each in kept if each.words), gone)


def _told(transcript: Transcript, utterances: tuple[Utterance, ...], gone: int) -> Transcript:
    """`transcript` with `utterances` only; of `gone` texts all or some words are left out."""
    warnings = (*transcript.warnings, ResultWarning(code=WarningCode.UNHEARD_DROPPED, count=gone))
    return replace(transcript, utterances=utterances, warnings=warnings, dropped=transcript.dropped + gone)


def _without_strays(utterance: Utterance, speech: Sequence[Span]) -> Utterance:
    words = tuple(
        word
        for sentence in _sentences(utterance.words)
        if not _is_unsaid(sentence, speech)
        for word in sentence
        if not _is_stray(word, speech)
    )
    return (
        utterance
        if len(words) == len(utterance.words)
        else replace(utterance, words=words, text=joined(word.text for word in words))
    )


def _is_stray(word: Word, speech: Sequence[Span]) -> bool:
    unheard = word.alignment_score is not None and word.alignment_score < STRAY_SCORE
    return unheard and not _is_near(word, speech)


def _is_near(word: Word, speech: Sequence[Span]) -> bool:
    near = Span(start_s=word.start_s - STRAY_S, end_s=word.end_s + STRAY_S)
    return any(near.overlap_s(span) for span in speech)


def _sentences(words: Sequence[Word]) -> list[Sequence[Word]]:
    cuts = [at for at, (before, after) in enumerate(pairwise(words), 1) if ends_sentence(before, after)]
    return [words[start:end] for start, end in pairwise([0, *cuts, len(words)])]


def _is_unsaid(sentence: Sequence[Word], speech: Sequence[Span]) -> bool:
    """Whether a sentence whose words only the recogniser has timed lies far from all speech."""
    attended = all(word.alignment_score is None and not word.interpolated for word in sentence)
    doubted = len(sentence) >= STRAY_WORDS or is_phantom(joined(word.text for word in sentence))
    return bool(speech) and attended and doubted and not any(_is_near(word, speech) for word in sentence)


def is_unheard(utterance: Utterance) -> bool:
    """Whether an acoustic aligner listened for several words and heard none of them."""
    scores = [word.alignment_score for word in utterance.words]
    return len(scores) >= LEAST_WORDS and all(score is not None and score < HEARD_SCORE for score in scores)
