"""Spells words as an acoustic model can emit them: its letters, its delimiter, and wildcards for the rest.

Knows nothing of audio or models. Digits, symbols and letters of other scripts become wildcards, which match any sound;
punctuation is not spoken and is left out.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deployments.types import CJK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LANGUAGES_WITHOUT_SPACES: Final = frozenset({"ja", "zh"})
"""In these languages single characters count as words, as in whisperX."""
SOUNDS_PER_SIGN: Final = 4
"""Wildcards of a digit or symbol where letters are sounds: the mean length of "zero" to "nine". With one wildcard the
start of a word in digits is off by 34 ms (median) and 287 ms (90th percentile), with four by 14 and 76 ms."""
LONG_SIGNS: Final = 3
"""Digits of a word that get several wildcards: 1000000 is not read digit by digit."""
LARGEST_ALPHABET: Final = 100
"""A model with more letters writes syllables or words, and a digit is one of them."""
_CHARACTERS: Final = re.compile(rf"[{CJK}][^\w\s]*|[^{CJK}\s]+")
"""A character with the punctuation after it, or a run of anything else (`GPT`, `2026`)."""
_APOSTROPHES: Final = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
_READ_OUT: Final = frozenset({"Nd", "Nl", "No", "Sc", "Sm"})
"""Unicode's categories of numerals, currencies and mathematical symbols."""
_READ_OUT_TOO: Final = frozenset("%&@#\u2030\u00b0")
"""Characters of other categories that are read aloud: per cent, and, at, number, per mille, degree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The labels of a model's emissions by column."""

    letters: Mapping[str, int]
    """Column of each single character as the model writes it."""
    size: int
    """Number of columns."""
    blank: int
    """Column of CTC's blank."""
    delimiter: int | None
    """Column of the delimiter between words; None where the model has none."""

    @property
    def wildcard(self) -> int:
        """The column that is added for wildcards: the one after the model's own."""
        return self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """A text as columns of the emissions."""

    tokens: tuple[int, ...]
    """Of all words, with the delimiter between them."""
    words: tuple[range, ...]
    """Per word the indices of its tokens; empty for a word that is not spoken, such as a dash."""


def vocabulary(labels: Mapping[str, int], *, size: int, blank: int, delimiter: int | None) -> Vocabulary:
    """Return the vocabulary of a model with `size` columns. `labels`: column by label.

    Only labels of one character are letters. A tokenizer may know more labels than the model has columns.
    """
    letters = {
        label: column
        for label, column in labels.items()
        if len(label) == 1 and column < size and column not in {blank, delimiter}
    }
    return Vocabulary(letters=letters, size=size, blank=blank, delimiter=delimiter)


def words_of(text: str, language: str) -> list[str]:
    """Split `text` into words at spaces; in languages without spaces into characters."""
    return _CHARACTERS.findall(text) if language in LANGUAGES_WITHOUT_SPACES else text.split()


def spell(words: Sequence[str], known: Vocabulary) -> Spelling:
    """Spell `words` as tokens of `known`."""
    tokens: list[int] = []
    indices = []
    for word in words:
        spelled = spell_word(word, known)
        if spelled and tokens and known.delimiter is not None:
            tokens.append(known.delimiter)
        indices.append(range(len(tokens), len(tokens) + len(spelled)))
        tokens += spelled
    return Spelling(tokens=tuple(tokens), words=tuple(indices))


def spell_word(word: str, known: Vocabulary) -> list[int]:
    """Return the tokens of one word; none for punctuation only."""
    text = unicodedata.normalize("NFC", word).translate(_APOSTROPHES)
    tokens: list[int] = []
    long_ones = LONG_SIGNS if len(known.letters) <= LARGEST_ALPHABET else 0
    for character in text:
        letters = letters_of(character, known)
        if letters:
            tokens += letters
        elif unicodedata.category(character)[0] == "L":
            tokens.append(known.wildcard)
        elif _is_read_out(character):
            tokens += [known.wildcard] * (SOUNDS_PER_SIGN if long_ones > 0 else 1)
            long_ones -= 1
    return tokens


def letters_of(character: str, known: Vocabulary) -> list[int]:
    """Return the columns of `character`, of its other case or of the letters that compose it; else none."""
    if character in known.letters:
        return [known.letters[character]]
    decomposed = unicodedata.normalize("NFKD", character)
    bare = "".join(part for part in decomposed if not unicodedata.combining(part))
    for form in (character.lower(), character.upper(), decomposed.lower(), bare.casefold(), bare.upper()):
        if form and all(part in known.letters for part in form):
            return [known.letters[part] for part in form]
    return []


def _is_read_out(character: str) -> bool:
    """Return whether `character` is a numeral or a symbol that is read aloud."""
    return unicodedata.category(character) in _READ_OUT or character in _READ_OUT_TOO
