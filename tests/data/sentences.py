"""The 63 English and 14 Korean words that the small models know, and sentences of them. Knows no sound."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Sentence = tuple[str, ...]

DATA = Path(__file__).parent

DETERMINERS = ("the", "a", "my", "your")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ADJECTIVES = ("red", "green", "blue", "yellow", "small", "big", "old", "new", "quiet", "happy")
NOUNS = (
    *("river", "house", "garden", "window", "doctor", "student", "teacher"),
    *("meeting", "train", "coffee", "music", "table", "bird", "letter"),
)
VERBS = ("opens", "closes", "reads", "writes", "likes", "sees", "wants", "brings")
PREPOSITIONS = ("in", "with", "from", "after", "before", "behind")
CONJUNCTIONS = ("and", "but")
ADVERBS = ("today", "tomorrow", "slowly", "again")
GREETINGS = ("hello", "please", "thanks", "yes", "no")
ENGLISH = (
    *(*DETERMINERS, *NUMBERS, *ADJECTIVES, *NOUNS, *VERBS),
    *(*PREPOSITIONS, *CONJUNCTIONS, *ADVERBS, *GREETINGS),
)
KOREAN = (
    "오늘",
    "내일",
    "학교",
    "회의",
    "시작",
    "사람",
    "음악",
    "커피",
    "바다",
    "나무",
    "우리",
    "친구",
    "세시",
    "감사합니다",
)
VOCABULARY = ENGLISH + KOREAN

SALAD_SHARE = 0.5
"""Of the English sentences are words in any order, so that no knowledge of language helps to hear them."""
SALAD_LENGTHS = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
KOREAN_LENGTHS = (1, 2, 3, 3, 4, 4, 5, 6, 7)
MAX_WORDS = 12
MAX_CHANCE_WORDS = 2
"""Sentences of so few words come again by chance."""


def english(draw: np.random.Generator) -> Sentence:
    """One to twelve words, lower case."""
    if draw.random() < SALAD_SHARE:
        return tuple(draw.choice(ENGLISH, size=draw.choice(SALAD_LENGTHS)).tolist())
    greeting = (one_of(draw, GREETINGS),) if draw.random() < 0.2 else ()
    words = (*greeting, *_thing(draw), one_of(draw, VERBS), *_thing(draw))
    if draw.random() < 0.45:
        words += (one_of(draw, PREPOSITIONS), *_thing(draw))
    if draw.random() < 0.3:
        words += (one_of(draw, ADVERBS),)
    return words[:MAX_WORDS]


def korean(draw: np.random.Generator) -> Sentence:
    """One to seven words in any order."""
    return tuple(draw.choice(KOREAN, size=draw.choice(KOREAN_LENGTHS)).tolist())


def one_of(draw: np.random.Generator, words: Sentence) -> str:
    """Any of `words`."""
    return words[draw.integers(len(words))]


def written(words: Sentence) -> str:
    """As the recogniser is to write it: a capital, a full stop."""
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def plain(text: str) -> Sentence:
    """The words of a written sentence, back again."""
    return tuple(text.lower().replace(".", " ").split())


@cache
def kept_for_tests() -> frozenset[Sentence]:
    """Every sentence of three words and more that is said in tests/data: none of them may be trained on."""
    said: set[Sentence] = set()
    for path in sorted(DATA.glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        texts = [each["text"] for each in content.values()] if path.name == "texts.json" else []
        spoken = content.get("utterances", ())
        said |= {plain(text) for text in texts} | {tuple(w["text"] for w in each["words"]) for each in spoken}
    return frozenset(sentence for sentence in said if len(sentence) > MAX_CHANCE_WORDS)


def _thing(draw: np.random.Generator) -> Sentence:
    first = one_of(draw, DETERMINERS) if draw.random() < 0.7 else one_of(draw, NUMBERS)
    adjective = (one_of(draw, ADJECTIVES),) if draw.random() < 0.55 else ()
    return (first, *adjective, one_of(draw, NOUNS))
