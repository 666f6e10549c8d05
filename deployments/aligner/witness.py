"""The aligner as a second witness: text of which it hears no word was probably invented by the recogniser.

Whisper writes likely sentences over music and noise, with a good conscience; the acoustic model then finds none of
their letters in the sound. Plain functions over transcripts; knows nothing of models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from deployments.types import Transcript, Utterance

HEARD_SCORE: Final = 0.03
"""A word's mean probability of its letters. The best word of a true sentence is above 0.2, under noise as loud as it is,
too; of what the small recogniser wrote over melodies it was below this in nine of thirteen (the tests' small models)."""
LEAST_WORDS: Final = 3
"""Of fewer words none may be in the acoustic model's reach: rare syllables, names, foreign letters."""
UNHEARD: Final = "Text of which no word can be found in the sound was left out: the recogniser probably invented it."


def without_unheard(transcript: Transcript) -> Transcript:
    """`transcript` without the utterances of which no word was heard; what goes is counted and told."""
    heard = tuple(each for each in transcript.utterances if not is_unheard(each))
    gone = len(transcript.utterances) - len(heard)
    if not gone:
        return transcript
    warnings = (*transcript.warnings, UNHEARD)
    return replace(transcript, utterances=heard, warnings=warnings, dropped=transcript.dropped + gone)


def is_unheard(utterance: Utterance) -> bool:
    """Whether an utterance has several words and none of them scores; not where the scores are the recogniser's own."""
    scores = [word.confidence for word in utterance.words]
    listened = any(score != utterance.confidence for score in scores)
    scored = all(score is not None and score < HEARD_SCORE for score in scores)
    return listened and scored and len(scores) >= LEAST_WORDS
