"""A text as the recogniser's tokens, and the words' starts and probabilities from what is known of the tokens.

The text is the one that is told, after the guard's cuts, and not what the decoder wrote: it is aligned as it stands.
Knows nothing of models or sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deployments.aligner.vocabulary import words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """A text in tokens. `offsets`: for each the characters that it writes, `start` to before `end`."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    """Tokens that write bytes of one letter, as those of Hangul do, all have that letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """Where the decoder looks for each token. `starts_s`: shape (tokens + 1,), the last one is the text's end.

    `probabilities`: shape (tokens,), of each token after those before it.
    """

    starts_s: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendedWord:
    """A word, where the decoder looks for it, and how probable it is."""

    text: str
    start_s: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Whole letters, `start` to `end` in the text, and the tokens that write them, a range."""

    start: int
    end: int
    tokens: range


def attended_words(tokenized: Tokenized, attended: Attended, language: str) -> list[AttendedWord]:
    """The words of the text, as `words_of` cuts it; those of one token share its time by their letters.

    A word's probability is the arithmetic mean of its tokens', those that write punctuation only left out: Whisper's
    own measure (openai/whisper, timing.py: `find_alignment`, and `merge_punctuations`, which keeps the word's).
    """
    pieces = _pieces(tokenized)
    words = []
    end = 0
    for text in words_of(tokenized.text, language):
        start = tokenized.text.index(text, end)
        end = start + len(text)
        inside = [piece for piece in pieces if piece.start < end and piece.end > start]
        spoken = [piece for piece in inside if any(map(str.isalnum, tokenized.text[piece.start : piece.end]))]
        tokens = [token for piece in spoken or inside for token in piece.tokens]
        words.append(
            AttendedWord(
                text=text,
                start_s=_time_s(inside[0], start, attended),
                probability=min(float(np.mean(attended.probabilities[tokens])), 1.0),
            )
        )
    return words


def _pieces(tokenized: Tokenized) -> list[_Piece]:
    """The tokens in order, those that share a letter as one piece; spaces before the letters are left out."""
    pieces: list[_Piece] = []
    for token, (start, end) in enumerate(tokenized.offsets):
        first = token
        if pieces and start < pieces[-1].end:
            shared = pieces.pop()
            start, end, first = shared.start, max(end, shared.end), shared.tokens.start  # noqa: PLW2901
        letters = tokenized.text[start:end]
        pieces.append(
            _Piece(start=start + len(letters) - len(letters.lstrip()), end=end, tokens=range(first, token + 1))
        )
    return pieces


def _time_s(piece: _Piece, character: int, attended: Attended) -> float:
    """When the `character` is looked for, which is one of `piece`'s or lies before them."""
    begin_s, end_s = attended.starts_s[[piece.tokens.start, piece.tokens.stop]]
    return float(np.interp(character, (piece.start, piece.end), (begin_s, end_s)))
