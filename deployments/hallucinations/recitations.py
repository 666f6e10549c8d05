"""Finds texts that Whisper only copied from the vocabulary that it was given: it does so where nobody speaks.

Plain functions over texts; knows nothing of models.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_IGNORED: Final = re.compile(r"[\W_]+")


def is_recited(text: str, vocabulary: Sequence[str]) -> bool:
    """Return whether `text` is nothing but terms of `vocabulary`: what Whisper copies where nobody speaks.

    Case, spaces and punctuation do not count; the last term may be cut short.
    """
    plain, terms = _plain(text), {_plain(term) for term in vocabulary}
    reached = {0}
    for at in range(len(plain)):
        if at in reached:
            reached |= {min(at + len(term), len(plain)) for term in terms if _begins(plain, term, at)}
    return bool(plain) and len(plain) in reached


def _begins(plain: str, term: str, at: int) -> bool:
    """Return whether `term` stands in `plain` at `at`, or as much of it as there is left behind another term."""
    return plain.startswith(term, at) or (at > 0 and term.startswith(plain[at:]))


def _plain(text: str) -> str:
    return _IGNORED.sub("", text.casefold())
