"""How long a word takes to say, measured in letters. Plain functions over text."""

from __future__ import annotations

import unicodedata
from typing import Final

LETTERS_PER_SIGN: Final = 3.0
"""For a character that stands for a syllable or a word, such as Han or kana."""
LETTERS_PER_DIGIT: Final = 4.0


def spoken_letters(word: str) -> float:
    """Return the length of `word` when spoken, in letters; at least 1. Hangul counts by letter, not by syllable."""
    count = 0.0
    for character in unicodedata.normalize("NFKD", word):
        category = unicodedata.category(character)[0]
        if category == "L":
            count += LETTERS_PER_SIGN if _is_syllable(character) else 1
        elif category == "N":
            count += LETTERS_PER_DIGIT
    return max(count, 1.0)


def _is_syllable(character: str) -> bool:
    """Return whether `character` stands for a syllable or a word: it is wide and not a letter of Hangul."""
    return unicodedata.east_asian_width(character) == "W" and not "\u1100" <= character <= "\u11ff"
