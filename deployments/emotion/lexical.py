"""What a segment's words tell of its mood: how pleasant they are (VADER's lexicon), and cues for single moods.

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
"""VADER adds up what it finds and saturates over a long text: longer ones are averaged over windows of this length."""
FEW_WORDS = 2.0
"""So many words, well heard, give half of the trust that many give."""
NEGATIONS = frozenset({"not", "no", "never", "nothing", "nobody", "without", "cannot"})
"""And whatever ends in n't."""
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
class Wording:
    """`valence` is -1 to 1; `cues` are the moods that a word names; `trust`, 0-1: how many words, how well heard."""

    valence: float
    cues: frozenset[str]
    trust: float


class Lexicon:
    """The word lists, loaded once."""

    def __init__(self) -> None:
        self._vader = SentimentIntensityAnalyzer()

    def read(self, words: Sequence[Word]) -> Wording:
        """What `words` tell. Words that the recogniser was not sure of count less."""
        texts = [word.text.lower().strip(".,!?;:") for word in words]
        heard = np.array([1.0 if word.confidence is None else word.confidence for word in words])
        certain = float(heard.mean()) if len(heard) else 0.0
        return Wording(
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
    """Moods named by a word that is not negated shortly before."""
    return frozenset(
        _LABEL_OF[text]
        for i, text in enumerate(texts)
        if text in _LABEL_OF and not any(map(_negates, texts[max(0, i - NEGATION_REACH) : i]))
    )


def _negates(text: str) -> bool:
    return text in NEGATIONS or text.endswith("n't")
