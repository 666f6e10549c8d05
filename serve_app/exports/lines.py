"""Breaks text into lines of a given width: between words, and inside a word only if it is longer than a line."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from deployments.types import Span, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deployments.types import Word

_MEDIAL_JAMO = range(0x1160, 0x1200)
"""Conjoining vowels and final consonants of Hangul: they are drawn inside the first consonant's square."""
_NO_COLUMN = {"Mn", "Me", "Cf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Span):
    """An unbreakable piece of text: a word, or a part of a word that is longer than a line."""

    text: str
    spaced: bool
    """Whether a space precedes it within a line."""


def columns_of(text: str) -> int:
    """Return the width of `text`: two columns for an East Asian wide character, none for a combining one."""
    return sum(map(_columns_of, text))


@lru_cache(maxsize=4096)
def _columns_of(char: str) -> int:
    if unicodedata.category(char) in _NO_COLUMN or ord(char) in _MEDIAL_JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def tokens_of(words: Sequence[Word], columns: int) -> list[Token]:
    """Return the words as tokens of at most `columns`; parts of a word share its time by their length."""
    tokens = []
    before = ""
    for word in words:
        spaced = bool(before) and " " in joined((before[-1], word.text[0]))
        start_s = word.start_s
        for text in word.text.split(" "):
            for piece in _pieces(text, columns):
                end_s = start_s + word.duration_s * len(piece) / len(word.text)
                tokens.append(Token(start_s=start_s, end_s=end_s, text=piece, spaced=spaced))
                start_s, spaced = end_s, False
            spaced = True
        before = word.text
    return tokens


def _pieces(text: str, columns: int) -> Iterator[str]:
    borders, width = [0], 0
    for i, char in enumerate(text):
        width += _columns_of(char)
        if width > columns:
            borders.append(i)
            width = _columns_of(char)
    for start, end in pairwise([*borders, len(text)]):
        yield text[start:end]


def wrapped(tokens: Sequence[Token], columns: int, head: str = "") -> list[str]:
    """Return the fewest lines that hold the tokens. `head`, which ends with a space, begins the first line."""
    lines, width = [head], columns_of(head)
    for token in tokens:
        space = " " if token.spaced and lines[-1] not in ("", head) else ""
        longer = width + len(space) + columns_of(token.text)
        if lines[-1] and longer > columns:
            lines.append(token.text)
            width = columns_of(token.text)
        else:
            lines[-1] += space + token.text
            width = longer
    return [line.rstrip() for line in lines]


def balanced(tokens: Sequence[Token], columns: int, head: str = "") -> list[str]:
    """Return as few lines as `wrapped`, of lengths as equal as possible."""
    lines = wrapped(tokens, columns, head)
    longest = max(map(columns_of, lines))
    while len(lines) > 1:
        narrower = wrapped(tokens, longest - 1, head)
        if len(narrower) > len(lines) or max(map(columns_of, narrower)) >= longest:
            break
        lines, longest = narrower, max(map(columns_of, narrower))
    return lines
