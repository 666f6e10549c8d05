"""The embedded emotion engine: arousal from the voice, valence from the words, and the mood that lies nearest.

Knows nothing of Ray or jobs. Moods are places in the plane of valence and arousal (Russell 1980). The plane cannot tell
fear or disgust from anger, nor surprise from joy: those three are named only where a word names them.
Confidences follow from rules, not from labelled speech, and are kept low on that account.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from deployments.emotion.arousal import Arousal, arousals
from deployments.emotion.config import WORDS_IN
from deployments.emotion.lexical import Lexicon, Wording
from deployments.types import Emotion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Segment, Tracks, Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """Where a mood lies, and how far it reaches along arousal (1: as far as along valence)."""

    valence: float
    arousal: float
    breadth: float = 1.0
    named_only: bool = False


MOODS = {
    "neutral": Mood(valence=0.0, arousal=0.0, breadth=2.0),  # a raised voice alone is no mood
    "happy": Mood(valence=0.6, arousal=0.5),
    "sad": Mood(valence=-0.6, arousal=-0.4),
    "angry": Mood(valence=-0.6, arousal=0.5),
    "fearful": Mood(valence=-0.5, arousal=0.3, named_only=True),
    "disgusted": Mood(valence=-0.6, arousal=0.1, named_only=True),
    "surprised": Mood(valence=0.3, arousal=0.5, named_only=True),
}
REACH = 0.35
LOWEST, HIGHEST = -0.5, 0.6
"""Arousal beyond these tells no more: so more of it never makes the raised moods less likely, nor less the low one."""
NAMED = 4.0
"""Weight that a word gives to the mood it names; the four moods of the plane have 1 without any."""
CEILING = 0.75
"""Never surer than this: two axes and a word list do not tell more."""
MIN_EVIDENCE = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a segment is judged by; `words` is None where no list knows their language."""

    words: Sequence[Word] | None
    arousal: Arousal


class ProsodicLexicalEngine:
    """Judges by rules; the same segments get the same answer."""

    def __init__(self) -> None:
        self._lexicon = Lexicon()

    def cut(
        self,
        audio: Audio,  # noqa: ARG002  the tracks hold what is needed of it
        tracks: Tracks | None,
        segments: Sequence[Segment],
    ) -> list[list[Evidence]]:
        """See `EmotionEngine`: a segment's words, and its voice against the norm that all segments make."""
        if tracks is None:
            raise ValueError("moods are judged by the prosody's tracks, and there are none")
        return [
            [Evidence(segment.words if segment.language in WORDS_IN else None, arousal)]
            for segment, arousal in zip(segments, arousals(tracks, segments), strict=True)
        ]

    def judge(self, items: Sequence[Evidence]) -> list[Emotion | Exception | None]:
        """See `EmotionEngine`. Without words: None, since the voice alone does not tell pleasant from unpleasant."""
        return [
            by_voice(each.arousal) if each.words is None else judge(self._lexicon.read(each.words), each.arousal)
            for each in items
        ]

    def mood(self, answers: Sequence[Emotion | None]) -> Emotion | None:
        """See `EmotionEngine`."""
        return answers[0]

    def weight_s(self, item: Evidence) -> float:  # noqa: ARG002  the protocol's
        """See `EmotionEngine`. Nothing, it is arithmetic."""
        return 0.0

    def check(self) -> None:
        """Nothing here can break."""


def judge(wording: Wording, arousal: Arousal) -> Emotion | None:
    """The likeliest mood, or None where too few words were heard."""
    if wording.trust < MIN_EVIDENCE:
        return None
    shares = mood_shares(wording, arousal)
    label = max(shares, key=lambda name: shares[name])
    evidence = (wording.trust + arousal.trust) / 2
    return Emotion(label=label, confidence=round(CEILING * shares[label] * (1 + evidence) / 2, 3))


def by_voice(arousal: Arousal) -> Emotion | None:
    """`neutral` where a voice is near its speaker's norm, else None: raised may be joy or anger, lowered much else."""
    if arousal.trust < MIN_EVIDENCE:
        return None
    unmarked = Wording(valence=0.0, cues=frozenset(), trust=0.0)
    known = _known(arousal)
    scores = {
        name: _nearness(mood, mood.valence, known) for name, mood in MOODS.items() if _weight(name, mood, unmarked)
    }
    if max(scores, key=lambda name: scores[name]) != "neutral":
        return None
    share = scores["neutral"] / sum(scores.values())
    return Emotion(label="neutral", confidence=round(CEILING * share * (1 + arousal.trust / 2) / 2, 3))


def mood_shares(wording: Wording, arousal: Arousal) -> dict[str, float]:
    """How near each mood lies, as shares that add up to 1."""
    known = _known(arousal)
    scores = {
        name: _weight(name, mood, wording) * _nearness(mood, wording.valence, known) for name, mood in MOODS.items()
    }
    total = sum(scores.values())
    return {name: score / total for name, score in scores.items()}


def _known(arousal: Arousal) -> float:
    return min(max(arousal.value * arousal.trust, LOWEST), HIGHEST)


def _weight(name: str, mood: Mood, wording: Wording) -> float:
    return (0.0 if mood.named_only else 1.0) + (NAMED * wording.trust if name in wording.cues else 0.0)


def _nearness(mood: Mood, valence: float, arousal: float) -> float:
    distance = (valence - mood.valence) ** 2 + ((arousal - mood.arousal) / mood.breadth) ** 2
    return exp(-distance / (2 * REACH**2))
