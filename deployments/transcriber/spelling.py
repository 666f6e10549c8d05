"""From the recogniser's dictionary entries to words as people write them.

CMU's dictionary is in lower case, marks alternative pronunciations with a number, and has entries for noises.
Punctuation and the capitals of names are beyond it: nothing here guesses at them.
"""

from __future__ import annotations

import re

_FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")
_ALTERNATIVE = re.compile(r"\(\d+\)$")
_PRONOUN = re.compile(r"i(?=$|')")
_INITIALS = re.compile(r"(?:[a-z]\.)+(?='?s?$)")
_TITLES = {"mr": "Mr.", "mrs": "Mrs.", "ms": "Ms.", "dr": "Dr."}
_DAYS = {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
_MONTHS = {"january", "february", "april", "june", "july", "september", "october", "november", "december"}
"""Without march, may and august, which are words of their own too."""
_ALWAYS_CAPITAL = _DAYS | _MONTHS | {"english", "american"}


def written(entry: str) -> str | None:
    """The dictionary's `entry` as it is written, or None for silence and noises."""
    word = _ALTERNATIVE.sub("", entry)
    if _FILLER.fullmatch(word):
        return None
    stem = word.removesuffix("'s")
    if stem.rstrip(".") in _TITLES:
        return _TITLES[stem.rstrip(".")] + word[len(stem) :]
    if _PRONOUN.match(word) or stem in _ALWAYS_CAPITAL:
        return word[0].upper() + word[1:]
    return _INITIALS.sub(lambda match: match[0].upper(), word)
