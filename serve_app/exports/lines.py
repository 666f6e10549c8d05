"""Breaks text into lines of so many columns: between words, and inside one only where it is longer than a line."""

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
"""Vowels and final consonants of Hangul that is written in parts: they stand inside the first consonant's square."""
_NO_COLUMN = {"Mn", "Me", "Cf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Span):
    """What stays on one line: a word, or a piece of one that is longer than a line."""

    text: str
    spaced: bool
    """Whether a space stands before it, inside a line."""


def columns_of(text: str) -> int:
    """How wide `text` is: two columns for an East Asian wide character, none for what stands on another one."""
    return sum(map(_columns_of, text))


@lru_cache(maxsize=4096)
def _columns_of(char: str) -> int:
    if unicodedata.category(char) in _NO_COLUMN or ord(char) in _MEDIAL_JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def tokens_of(words: Sequence[Word], columns: int) -> list[Token]:
    """The words as tokens of at most `columns`; pieces of a word share its time by their length."""
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
    """As few lines as hold the tokens. `head` (it ends with a space) stands before them, in the first line."""
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
    """The same number of lines, as even as they can be."""
    lines = wrapped(tokens, columns, head)
    longest = max(map(columns_of, lines))
    while len(lines) > 1:
        narrower = wrapped(tokens, longest - 1, head)
        if len(narrower) > len(lines) or max(map(columns_of, narrower)) >= longest:
            break
        lines, longest = narrower, max(map(columns_of, narrower))
    return lines
