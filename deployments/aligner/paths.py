"""Finds the path of a spelled text through emissions, and the words' times on it.

Knows nothing of models or audio. The search is torchaudio's `forced_align`. A word starts where its first letter is
emitted and ends where the delimiter after it is emitted, as in `whisperx.align`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from deployments.aligner.vocabulary import Spelling, Vocabulary

MIN_FINAL_DELIMITER: Final = 0.1
"""Least probability of a delimiter that ends the last word; some models never learned a final delimiter."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The frames of one token on a path, the end excluded; `score`: their mean log-probability."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A word's place in frames, `start <= end`; `score`: mean probability of its letters there, 0-1."""

    start: float
    end: float
    score: float


def has_path(spelling: Spelling, frames: int) -> bool:
    """Return whether a path exists: it needs a frame per token, and one between two equal tokens."""
    repeats = sum(a == b for a, b in pairwise(spelling.tokens))
    return bool(spelling.tokens) and len(spelling.tokens) + repeats <= frames


def place(log_probs: torch.Tensor, spelling: Spelling, known: Vocabulary) -> list[Placed | None]:
    """Return the place of each word of `spelling`; None for words without tokens.

    `log_probs`: shape (frames, labels), float32. Words come in order and without overlap. Raises
    ValueError where the text does not fit (see `has_path`).
    """
    import torch
    from torchaudio.functional import forced_align

    if not has_path(spelling, len(log_probs)):
        raise ValueError(f"{len(spelling.tokens)} tokens do not fit into {len(log_probs)} frames")
    if known.wildcard in spelling.tokens:
        log_probs = with_wildcard(log_probs, known)
    targets = torch.tensor([spelling.tokens], dtype=torch.int32)
    # Unwrapped: torchaudio 2.8 warns at each call that the function goes away, which later releases took back.
    path, scores = inspect.unwrap(forced_align)(log_probs[None], targets, blank=known.blank)
    spans = spans_of(path[0].numpy(), scores[0].numpy(), known.blank)
    gains = (scores[0] - log_probs[:, known.blank]).numpy()
    final = final_delimiter(log_probs, spans[-1].end, known)
    return [_placed(word, spans, gains, final) for word in spelling.words]


def spans_of(path: NDArray[np.int32], scores: NDArray[np.float32], blank: int) -> list[TokenSpan]:
    """Return the runs of equal labels except blank on `path`, with their mean `scores`; both have shape (frames,).

    It equals torchaudio's `merge_tokens`, whose calls of torch for each mean were half of all work outside the network.
    """
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    lengths = np.diff(starts, append=len(path))
    means = np.add.reduceat(scores, starts) / lengths
    runs = zip(path[starts].tolist(), starts.tolist(), lengths.tolist(), means.tolist(), strict=True)
    return [TokenSpan(start, start + length, mean) for label, start, length, mean in runs if label != blank]


def with_wildcard(log_probs: torch.Tensor, known: Vocabulary) -> torch.Tensor:
    """Append a column for the wildcard: the likeliest label that is not blank, so that it matches any sound."""
    import torch

    sounding = log_probs.clone()
    sounding[:, known.blank] = -torch.inf
    return torch.cat([log_probs, sounding.max(dim=1, keepdim=True).values], dim=1)


def final_delimiter(log_probs: torch.Tensor, first: int, known: Vocabulary) -> int:
    """Return the frame from `first` on in which a delimiter is likeliest; `first` where none is likely."""
    if known.delimiter is None or first >= len(log_probs):
        return first
    tail = log_probs[first:, known.delimiter].exp().numpy()
    best = int(tail.argmax())
    return first + best if tail[best] >= MIN_FINAL_DELIMITER else first


def _placed(word: range, spans: Sequence[TokenSpan], gains: NDArray[np.float32], final: int) -> Placed | None:
    if not word:
        return None
    end = final if word.stop == len(spans) else emitted(spans[word.stop], gains)
    score = float(np.mean(np.exp([spans[token].score for token in word])))
    return Placed(start=emitted(spans[word.start], gains), end=end, score=min(score, 1.0))


def emitted(span: TokenSpan, gains: NDArray[np.float32]) -> int:
    """Return the frame of `span` in which its token gains most over blank.

    A search without repeated labels, as whisperX's, would have chosen that frame.
    """
    start: int = span.start
    return start + int(gains[start : span.end].argmax())


def fill_gaps(placed: Sequence[Placed | None], frames: int) -> list[Placed]:
    """Place words without tokens: they share the time between their neighbours, and get the mean of all scores."""
    known = [word for word in placed if word is not None]
    if not known:
        raise ValueError("no word is placed")
    score = float(np.mean([word.score for word in known]))
    filled: list[Placed] = []
    start = 0.0
    for is_gap, run in groupby(placed, key=lambda word: word is None):
        words = list(run)
        if is_gap:
            until = known[0].start if known else frames
            edges = np.linspace(start, until, len(words) + 1).tolist()
            filled += [Placed(start=a, end=b, score=score) for a, b in pairwise(edges)]
        else:
            filled += known[: len(words)]
            start = filled[-1].end
            del known[: len(words)]
    return filled
