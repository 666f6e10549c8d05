"""The engine `prosodic-lexical`: arousal from the voice, valence from the words, and the nearest emotion.

Emotions are points in the plane of valence and arousal (Russell 1980). The plane cannot separate fear or disgust from
anger, nor surprise from joy: these three need a word that names them. Confidences come from rules, not from labelled
speech, and are low for that reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from deployments.emotion.arousal import Arousal, arousals
from deployments.emotion.config import WORDS_IN
from deployments.emotion.lexical import LexicalEvidence, Lexicon
from deployments.types import Emotion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.types import Audio, Segment, Tracks, Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """The point of an emotion. `breadth`: its extent along arousal relative to that along valence."""

    valence: float
    arousal: float
    breadth: float = 1.0
    named_only: bool = False


MOODS = {
    "neutral": Mood(valence=0.0, arousal=0.0, breadth=2.0),  # a raised voice alone is no emotion
    "happy": Mood(valence=0.6, arousal=0.5),
    "sad": Mood(valence=-0.6, arousal=-0.4),
    "angry": Mood(valence=-0.6, arousal=0.5),
    "fearful": Mood(valence=-0.5, arousal=0.3, named_only=True),
    "disgusted": Mood(valence=-0.6, arousal=0.1, named_only=True),
    "surprised": Mood(valence=0.3, arousal=0.5, named_only=True),
}
REACH = 0.35
LOWEST, HIGHEST = -0.5, 0.6
"""Arousal is clipped to this range, so that more of it never makes the raised emotions less likely."""
NAMED = 4.0
"""Weight of an emotion that a word names; the four emotions of the plane have 1 without any."""
CEILING = 0.75
"""Highest confidence."""
MIN_EVIDENCE = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """A segment's words and arousal; `words` is None without a list for their language."""

    words: Sequence[Word] | None
    arousal: Arousal


class ProsodicLexicalEngine:
    """Classifies by rules, deterministically."""

    def __init__(self) -> None:
        self._lexicon = Lexicon()

    def cut(
        self,
        audio: Audio,  # noqa: ARG002  the tracks have all that is needed
        tracks: Tracks | None,
        segments: Sequence[Segment],
    ) -> list[list[Evidence]]:
        """See `EmotionEngine`: returns a segment's words, and its arousal against the norm of all segments."""
        if tracks is None:
            raise ValueError("moods are judged by the prosody's tracks, and there are none")
        return [
            [Evidence(segment.words if segment.language in WORDS_IN else None, arousal)]
            for segment, arousal in zip(segments, arousals(tracks, segments), strict=True)
        ]

    def judge(self, items: Sequence[Evidence]) -> list[Emotion | Exception | None]:
        """See `EmotionEngine`. Without words most answers are None: the voice alone shows no valence."""
        return [
            by_voice(each.arousal) if each.words is None else judge(self._lexicon.read(each.words), each.arousal)
            for each in items
        ]

    def mood(self, answers: Sequence[Emotion | None]) -> Emotion | None:
        """See `EmotionEngine`."""
        return answers[0]

    def weight_s(self, item: Evidence) -> float:  # noqa: ARG002  required by the protocol
        """See `EmotionEngine`: nothing, it is arithmetic."""
        return 0.0

    def check(self) -> None:
        """Do nothing: there is no device."""


def judge(lexical: LexicalEvidence, arousal: Arousal) -> Emotion | None:
    """Return the likeliest emotion; None with too few words."""
    if lexical.trust < MIN_EVIDENCE:
        return None
    shares = mood_shares(lexical, arousal)
    label = max(shares, key=lambda name: shares[name])
    evidence = (lexical.trust + arousal.trust) / 2
    return Emotion(label=label, confidence=round(CEILING * shares[label] * (1 + evidence) / 2, 3))


def by_voice(arousal: Arousal) -> Emotion | None:
    """Return `neutral` for a voice near its speaker's norm, else None: a raised voice may be joy or anger."""
    if arousal.trust < MIN_EVIDENCE:
        return None
    known = _known(arousal)
    scores = {name: _nearness(mood, mood.valence, known) for name, mood in MOODS.items() if not mood.named_only}
    if max(scores, key=lambda name: scores[name]) != "neutral":
        return None
    share = scores["neutral"] / sum(scores.values())
    return Emotion(label="neutral", confidence=round(CEILING * share * (1 + arousal.trust / 2) / 2, 3))


def mood_shares(lexical: LexicalEvidence, arousal: Arousal) -> dict[str, float]:
    """Return how near each emotion lies, as shares with sum 1."""
    known = _known(arousal)
    scores = {
        name: _weight(name, mood, lexical) * _nearness(mood, lexical.valence, known) for name, mood in MOODS.items()
    }
    total = sum(scores.values())
    return {name: score / total for name, score in scores.items()}


def _known(arousal: Arousal) -> float:
    return min(max(arousal.value * arousal.trust, LOWEST), HIGHEST)


def _weight(name: str, mood: Mood, lexical: LexicalEvidence) -> float:
    return (0.0 if mood.named_only else 1.0) + (NAMED * lexical.trust if name in lexical.cues else 0.0)


def _nearness(mood: Mood, valence: float, arousal: float) -> float:
    distance = (valence - mood.valence) ** 2 + ((arousal - mood.arousal) / mood.breadth) ** 2
    return exp(-distance / (2 * REACH**2))
