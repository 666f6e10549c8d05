"""Starts and probabilities of words from those of the recogniser's tokens.

The text is the filtered one (`deployments/hallucinations`), not what the decoder wrote. Knows nothing of models or
sound.
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
    """A text as tokens. `offsets`: per token the range of characters that it writes, the end excluded."""

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    """Tokens that write bytes of the same letter, as in Hangul, all have that letter's range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """Where the decoder's attention is at each token, in seconds from the chunk's start.

    `starts_s`: shape (tokens + 1,), the last one is the text's end.
    `probabilities`: shape (tokens,), 0-1, of each token given those before it.
    """

    starts_s: NDArray[np.float64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendedWord:
    """A word with its start by attention, in seconds from the chunk's start, and its probability, 0-1."""

    text: str
    start_s: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Whole letters of the text, `start` to before `end`, and the range of tokens that write them."""

    start: int
    end: int
    tokens: range


def attended_words(tokenized: Tokenized, attended: Attended, language: str) -> list[AttendedWord]:
    """Return the words of the text, as `words_of` splits it. Words of one token share its time by letters.

    A word's probability is the mean of its tokens' probabilities, without tokens that write only punctuation: Whisper's
    own measure (openai/whisper, timing.py, `find_alignment` and `merge_punctuations`).
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
    """Return the tokens in order, those that share a letter as one piece, without leading spaces."""
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
    """Return the time of `character`, which is in `piece` or before it, by linear interpolation."""
    begin_s, end_s = attended.starts_s[[piece.tokens.start, piece.tokens.stop]]
    return float(np.interp(character, (piece.start, piece.end), (begin_s, end_s)))
