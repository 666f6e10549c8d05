"""Finds the ends of sentences by the spelling of words and the pauses between them.

Plain functions over words; knows nothing of speakers.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Protocol

BREATH_S = 0.25
"""A pause of this length ends a sentence where the spelling does not decide."""
_CLOSING = "\"'”’»›)]}」』）】》〉"  # noqa: RUF001 - quotation marks and wide brackets are meant
"""Quotation marks and brackets that may follow a full stop."""
_END = re.compile(r"[.?!…。؟।。]$")
"""The last character of a sentence after normalisation, Arabic question mark and Devanagari danda included."""
_CLAUSE = re.compile(r"[,;:、،]$")
_TITLE = re.compile(r"(mr|mrs|ms|dr|prof|st|sr|jr|vs|nos|fig|vol|approx|dept|e\.g|i\.e|cf|al)\.$", re.IGNORECASE)
"""Abbreviations that do not end a sentence."""
_INITIALS = re.compile(r"(\w\.)+$")
"""`J.`, `U.S.`, `p.m.`"""
_KOREAN_END = re.compile(r"(니다|[습입합됩]니까|[어아해에예네세나까지래데게]요|죠|[했었았였겠한]다)$")
"""Final endings of Korean verbs: with a pause they end a sentence that has no full stop."""


class TimedText(Protocol):
    """A word, or a part of one, with its times in seconds."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def start_s(self) -> float: ...  # noqa: D102
    @property
    def end_s(self) -> float: ...  # noqa: D102


def ends_sentence(before: TimedText, after: TimedText) -> bool:
    """Return whether a sentence ends between two consecutive words."""
    text = bare(before.text)
    breath = after.start_s - before.end_s >= BREATH_S
    if not _END.search(text):
        return breath and bool(_KOREAN_END.search(text))
    if text.endswith("…") or text.lower() == "etc.":
        return not begins_small(after)
    if text.lower() == "no.":
        return not after.text[0].isdigit()
    if _INITIALS.match(text) and text != "I.":
        return breath and not begins_small(after)
    return not _TITLE.search(text)


def ends_clause(before: TimedText) -> bool:
    """Return whether a word ends in a comma, a colon or a semicolon."""
    return bool(_CLAUSE.search(bare(before.text)))


def begins_small(word: TimedText) -> bool:
    """Return whether a word starts with a small letter of a script that has capitals."""
    letters = [char for char in word.text if char.isalpha()]
    return bool(letters) and letters[0].islower()


def bare(text: str) -> str:
    """Return `text` without closing quotation marks and brackets, in NFKC form (wide characters become narrow)."""
    return unicodedata.normalize("NFKC", text.rstrip(_CLOSING)).replace("...", "…").rstrip(_CLOSING)
