"""Emotion from a segment's words: their valence by VADER's lexicon, and words that name single emotions.

Knows nothing of the voice. English only. VADER: Hutto and Gilbert 2014, a rated list of 7,500 words with rules for
negation and degree; why it and not TextBlob: docs/decisions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Word

WINDOW_WORDS = 20
"""VADER sums over a text and saturates: longer texts are averaged over windows of this length."""
FEW_WORDS = 2.0
"""Number of confidently recognised words for a trust of 0.5."""
NEGATIONS = frozenset({"not", "no", "never", "nothing", "nobody", "without", "cannot"})
"""Words that negate what follows, beside those that end in n't."""
NEGATION_REACH = 3

CUES = {
    "angry": "angry anger furious mad annoyed outraged rage hate hated damn stupid idiot dare unacceptable",
    "sad": "sad sadly unhappy lonely alone cry cried crying tears died dead funeral grief heartbroken miserable",
    "fearful": "afraid fear scared scary frightened terrified terrifying panic worried nervous anxious horror",
    "disgusted": "disgusting disgusted disgust gross nasty filthy revolting sickening yuck rotten vile",
    "surprised": "wow surprise surprised surprising unbelievable incredible amazed astonished suddenly unexpected",
}
_LABEL_OF = {word: label for label, words in CUES.items() for word in words.split()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LexicalEvidence:
    """`valence`: -1 to 1. `cues`: emotions that a word names. `trust`: 0-1, by the number and confidence of words."""

    valence: float
    cues: frozenset[str]
    trust: float


class Lexicon:
    """The loaded word lists."""

    def __init__(self) -> None:
        self._vader = SentimentIntensityAnalyzer()

    def read(self, words: Sequence[Word]) -> LexicalEvidence:
        """Return the evidence of `words`. Words with a low confidence count less."""
        texts = [word.text.lower().strip(".,!?;:") for word in words]
        confidences = np.array([1.0 if word.confidence is None else word.confidence for word in words])
        certain = float(confidences.mean()) if len(confidences) else 0.0
        return LexicalEvidence(
            valence=self._valence(texts) * certain,
            cues=_cues(texts),
            trust=certain * len(texts) / (len(texts) + FEW_WORDS),
        )

    def _valence(self, texts: Sequence[str]) -> float:
        windows = [texts[i : i + WINDOW_WORDS] for i in range(0, len(texts), WINDOW_WORDS)]
        if not windows:
            return 0.0
        scores = [self._vader.polarity_scores(" ".join(window))["compound"] for window in windows]
        return float(np.average(scores, weights=[len(window) for window in windows]))


def _cues(texts: Sequence[str]) -> frozenset[str]:
    """Return the emotions that are named by a word without a negation shortly before it."""
    return frozenset(
        _LABEL_OF[text]
        for i, text in enumerate(texts)
        if text in _LABEL_OF and not any(map(_negates, texts[max(0, i - NEGATION_REACH) : i]))
    )


def _negates(text: str) -> bool:
    return text in NEGATIONS or text.endswith("n't")
