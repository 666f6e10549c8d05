from __future__ import annotations

import pytest

from deployments.emotion.lexical import Lexicon
from deployments.types import Word

LEXICON = Lexicon()
PLEASANT = (
    "i am so happy to see you",
    "this is wonderful news",
    "thank you so much that was very kind of you",
    "we won the game and everybody is celebrating",
    "i had such a good time last night",
    "it was not bad at all",
)
UNPLEASANT = (
    "i am so angry with you right now",
    "this is the worst service i have ever had",
    "he died last week and i miss him terribly",
    "we lost all of our money",
    "it is not good",
    "i do not like this at all",
)
PLAIN = (
    "the meeting starts at nine",
    "i am from chicago originally",
    "the train leaves from platform four",
    "there is not that much difference",
)


def words(text: str, *, confidence: float | None = None) -> list[Word]:
    return [Word(start_s=i, end_s=i + 1, text=t, probability=confidence) for i, t in enumerate(text.split())]


@pytest.mark.parametrize("text", PLEASANT)
def test_pleasant_words(text: str) -> None:
    """Words a listener calls pleasant, negated unpleasant ones among them, have a positive valence."""
    assert LEXICON.read(words(text)).valence > 0.2


@pytest.mark.parametrize("text", UNPLEASANT)
def test_unpleasant_words(text: str) -> None:
    """Words a listener calls unpleasant, negated pleasant ones among them, have a negative valence."""
    assert LEXICON.read(words(text)).valence < -0.2


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words(text: str) -> None:
    """Words without a mood have a valence near nothing, and name none."""
    wording = LEXICON.read(words(text))
    assert abs(wording.valence) < 0.2
    assert wording.cues == frozenset()


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        ("I am afraid of him", {"fearful"}),
        ("Wow! That smells disgusting.", {"surprised", "disgusted"}),
        ("i am not afraid of him", set()),
        ("I wasn't really angry", set()),
        ("not that it matters to me but i was so angry", {"angry"}),
    ],
)
def test_moods_named_by_words(text: str, cues: set[str]) -> None:
    """A word names its mood, through capitals and punctuation, unless it is negated shortly before."""
    assert LEXICON.read(words(text)).cues == cues


def test_words_badly_heard_count_less() -> None:
    """Valence and trust shrink with the recogniser's confidence, and vanish with it; no confidence counts as sure."""
    readings = [LEXICON.read(words("this is wonderful news", confidence=c)) for c in (0.0, 0.3, 0.6, 1.0, None)]
    for name in ("valence", "trust"):
        values = [getattr(reading, name) for reading in readings]
        assert values[0] == 0
        assert values[:4] == sorted(values[:4])
        assert values[4] == values[3]


def test_long_speech_does_not_saturate() -> None:
    """A long speech that is mildly pleasant throughout is no more pleasant than one sentence of it."""
    sentence = "the people there were quite nice and the rooms were on the second floor of the old house by the"
    once, often = (LEXICON.read(words(" ".join([sentence] * times))).valence for times in (1, 20))
    assert often == pytest.approx(once, abs=0.1)


def test_no_words_no_trust() -> None:
    """Nothing said tells nothing."""
    wording = LEXICON.read([])
    assert (wording.valence, wording.cues, wording.trust) == (0.0, frozenset(), 0.0)
