"""Drops words that the sound does not confirm: the acoustic aligner hears no letter of them, or nobody speaks there.

Whisper hallucinates likely sentences over music and noise. An acoustic aligner then gives all their words scores near
0. Far from all detected speech single words are doubted, too: a chunk spans several stretches of speech, and the
recogniser may write text for what lies between them. Sentences that no aligner has scored are doubted where their
word times lie far from all speech. Plain functions over transcripts; knows nothing of models.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import is_hallucinated_phrase
from deployments.sentence_ends import ends_sentence
from deployments.types import Span, joined
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Transcript, Utterance, Word

HEARD_SCORE: Final = 0.03
"""An utterance is dropped where all its words have lower alignment scores. The best word of a true sentence is above
0.2, even under noise as loud as it; of what the small recogniser hallucinated over melodies, nine of thirteen were
below this (with the tests' models)."""
LEAST_WORDS: Final = 3
"""Shorter utterances are not doubted: the acoustic model may not know rare syllables, names and foreign letters."""
OUTSIDE_SPEECH_SCORE: Final = 0.1
"""Outside speech a word with a lower alignment score is dropped."""
OUTSIDE_SPEECH_S: Final = 0.5
"""Words farther than this from all detected speech are outside speech."""
OUTSIDE_SPEECH_WORDS: Final = 2
"""An unscored sentence outside speech with fewer words is dropped only if it is a hallucinated phrase: the recogniser's
attention gives a pause to the first word after it."""


def drop_unheard(transcript: Transcript, speech: Sequence[Span]) -> Transcript:
    """Return one chunk's `transcript` without words that the sound does not confirm, with a warning that counts them.

    `speech`: all detected speech of the video. An utterance of which every word is dropped is dropped itself.
    """
    return drop_words_outside_speech(drop_unheard_utterances(transcript), speech)


def drop_unheard_utterances(transcript: Transcript) -> Transcript:
    """Return `transcript` without utterances of which the acoustic aligner finds no word in the sound."""
    heard = tuple(each for each in transcript.utterances if not _is_unheard(each))
    return _with_warning(transcript, heard, len(transcript.utterances) - len(heard))


def drop_words_outside_speech(transcript: Transcript, speech: Sequence[Span]) -> Transcript:
    """Return `transcript` without unheard words, and without unscored sentences, that lie far from all `speech`."""
    cut = tuple(_cut_outside_speech(each, speech) for each in transcript.utterances)
    changed = sum(len(a.words) != len(b.words) for a, b in zip(transcript.utterances, cut, strict=True))
    remaining = tuple(each for each in cut if each.words) if changed else cut
    return _with_warning(transcript, remaining, changed)


def _with_warning(transcript: Transcript, utterances: tuple[Utterance, ...], dropped: int) -> Transcript:
    """Return `transcript` with `utterances`; `dropped`: how many utterances are missing or cut."""
    if not dropped:
        return transcript
    warning = ResultWarning(code=WarningCode.UNHEARD_DROPPED, count=dropped)
    return replace(transcript, utterances=utterances, warnings=(*transcript.warnings, warning))


def _cut_outside_speech(utterance: Utterance, speech: Sequence[Span]) -> Utterance:
    words = tuple(
        word
        for sentence in _sentences(utterance.words)
        if not _is_unscored_outside_speech(sentence, speech)
        for word in sentence
        if not _is_unheard_outside_speech(word, speech)
    )
    if len(words) == len(utterance.words):
        return utterance
    return replace(utterance, words=words, text=joined(word.text for word in words))


def _sentences(words: Sequence[Word]) -> list[Sequence[Word]]:
    cuts = [at for at, (before, after) in enumerate(pairwise(words), 1) if ends_sentence(before, after)]
    return [words[start:end] for start, end in pairwise([0, *cuts, len(words)])]


def _is_unheard(utterance: Utterance) -> bool:
    """Return whether an acoustic aligner scored several words and found none of them in the sound."""
    scores = [word.alignment_score for word in utterance.words]
    return len(scores) >= LEAST_WORDS and all(score is not None and score < HEARD_SCORE for score in scores)


def _is_unheard_outside_speech(word: Word, speech: Sequence[Span]) -> bool:
    unheard = word.alignment_score is not None and word.alignment_score < OUTSIDE_SPEECH_SCORE
    return unheard and not _is_near(word, speech)


def _is_unscored_outside_speech(sentence: Sequence[Word], speech: Sequence[Span]) -> bool:
    """Return whether a sentence lies far from all speech by the recogniser's own word times, its only ones."""
    attended = all(word.alignment_score is None and not word.interpolated for word in sentence)
    doubted = len(sentence) >= OUTSIDE_SPEECH_WORDS or is_hallucinated_phrase(joined(word.text for word in sentence))
    return bool(speech) and attended and doubted and not any(_is_near(word, speech) for word in sentence)


def _is_near(word: Word, speech: Sequence[Span]) -> bool:
    near = Span(start_s=word.start_s - OUTSIDE_SPEECH_S, end_s=word.end_s + OUTSIDE_SPEECH_S)
    return any(near.overlap_s(span) for span in speech)
