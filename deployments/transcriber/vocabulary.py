"""The text before a transcript that tells Whisper names and terms.

Whisper continues the text that it is given as the one before: names in it are likelier in the transcript. It takes the
last `MOST_TOKENS` tokens of that text at most. Plain functions over texts; knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_TOKENS: Final = 223
"""Half of the decoder's 448 tokens, without the one that begins the text before. Whisper's own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBefore:
    """Terms as tokens of text, and how many terms are `cut` because they did not fit."""

    ids: tuple[int, ...] = ()
    cut: int = 0


def text_before(vocabulary: Sequence[str], tokens_of: Callable[[str], Sequence[int]]) -> TextBefore:
    """Return as many terms as fit, from the first one on: what follows the first that does not fit is cut, too."""
    fitting: Sequence[int] = ()
    for number in range(1, len(vocabulary) + 1):
        longer = tokens_of(written(vocabulary[:number]))
        if len(longer) > MOST_TOKENS:
            return TextBefore(ids=tuple(fitting), cut=len(vocabulary) - number + 1)
        fitting = longer
    return TextBefore(ids=tuple(fitting))


def written(terms: Sequence[str]) -> str:
    """Return the terms as a sentence, which Whisper continues."""
    return f" {', '.join(terms)}."
