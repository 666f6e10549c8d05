"""The path of a spelled text through emissions, and the words' times on it.

Knows nothing of models or audio: it gets log-probabilities per frame. The search is torchaudio's `forced_align`.
A word begins where its first letter is emitted and ends where the delimiter after it is, as in `whisperx.align`.
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
"""Probability from which a delimiter after the last letter ends the last word; some models never learned one."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The frames that a path gives to one token, the end not among them; `score`: their mean log-probability."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A word in frames: `start <= end`; `score` is 0-1, the mean probability of its letters where they were put."""

    start: float
    end: float
    score: float


def fits(spelling: Spelling, frames: int) -> bool:
    """Whether a path exists: a frame for each token, and one between two that are the same."""
    repeats = sum(a == b for a, b in pairwise(spelling.tokens))
    return bool(spelling.tokens) and len(spelling.tokens) + repeats <= frames


def place(log_probs: torch.Tensor, spelling: Spelling, known: Vocabulary) -> list[Placed | None]:
    """Where each word of `spelling` lies; None for words without tokens.

    `log_probs`: shape (frames, labels), float32. Words come in order and without overlap.

    Raises:
        ValueError: the text does not fit (see `fits`).
    """
    import torch
    from torchaudio.functional import forced_align

    if not fits(spelling, len(log_probs)):
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
    """The runs of equal labels but blank on a `path`, shape (frames,), with the mean of their `scores`, of that shape.

    What torchaudio's `merge_tokens` gives, which asks torch for each mean: half of all work outside the network.
    """
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    lengths = np.diff(starts, append=len(path))
    means = np.add.reduceat(scores, starts) / lengths
    runs = zip(path[starts].tolist(), starts.tolist(), lengths.tolist(), means.tolist(), strict=True)
    return [TokenSpan(start, start + length, mean) for label, start, length, mean in runs if label != blank]


def with_wildcard(log_probs: torch.Tensor, known: Vocabulary) -> torch.Tensor:
    """`log_probs` with one more column: the likeliest label that is not blank, so that it stands for any sound."""
    import torch

    sounding = log_probs.clone()
    sounding[:, known.blank] = -torch.inf
    return torch.cat([log_probs, sounding.max(dim=1, keepdim=True).values], dim=1)


def final_delimiter(log_probs: torch.Tensor, first: int, known: Vocabulary) -> int:
    """The frame at or after `first` in which a delimiter is likeliest; `first` where none is likely."""
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
    """The one frame of `span` that stands for its token: where it gains most over blank.

    That is the frame which a search without repeated labels, as whisperX's, would have chosen.
    """
    start: int = span.start
    return start + int(gains[start : span.end].argmax())


def fill_gaps(placed: Sequence[Placed | None], frames: int) -> list[Placed]:
    """Words without tokens share the time between their neighbours (or the edges), and get the mean of all scores.

    Raises:
        ValueError: no word is placed.
    """
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
