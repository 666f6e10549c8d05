"""Where a sentence ends, by what its words are written as and by the pauses between them.

Plain functions over words; knows nothing of speakers. Languages that are written without full stops have their pauses.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Protocol

BREATH_S = 0.25
"""So long a pause tells the end of a sentence where its spelling leaves it open."""
_CLOSING = "\"'”’»›)]}」』）】》〉"  # noqa: RUF001 - quotation marks and wide brackets are meant
"""What may stand behind a full stop."""
_END = re.compile(r"[.?!…。؟।。]$")
"""A sentence's last sign, once wide signs are narrow ones: Arabic's question mark and Devanagari's danda too."""
_CLAUSE = re.compile(r"[,;:、،]$")
_TITLE = re.compile(r"(mr|mrs|ms|dr|prof|st|sr|jr|vs|nos|fig|vol|approx|dept|e\.g|i\.e|cf|al)\.$", re.IGNORECASE)
"""Abbreviations that something follows."""
_INITIALS = re.compile(r"(\w\.)+$")
"""`J.`, `U.S.`, `p.m.`"""
_KOREAN_END = re.compile(r"(니다|[습입합됩]니까|[어아해에예네세나까지래데게]요|죠|[했었았였겠한]다)$")
"""Final endings of Korean verbs, which stand for the full stop where none was written."""


class Said(Protocol):
    """A word, or a part of one."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def start_s(self) -> float: ...  # noqa: D102
    @property
    def end_s(self) -> float: ...  # noqa: D102


def ends_sentence(before: Said, after: Said) -> bool:
    """Whether a sentence ends between two words that follow each other."""
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


def ends_clause(before: Said) -> bool:
    """Whether a comma or the like stands behind a word."""
    return bool(_CLAUSE.search(bare(before.text)))


def begins_small(word: Said) -> bool:
    """Whether a word goes on with a sentence: its script has capitals, and it has none."""
    letters = [char for char in word.text if char.isalpha()]
    return bool(letters) and letters[0].islower()


def bare(text: str) -> str:
    """`text` without what may stand behind a full stop; wide signs as narrow ones."""
    return unicodedata.normalize("NFKC", text.rstrip(_CLOSING)).replace("...", "…").rstrip(_CLOSING)
