"""Which language is spoken, by a vote of several chunks. Knows nothing of how a chunk was heard."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deployments.types import Span

VOTERS = 5
"""So many chunks are asked; each costs a run of the encoder."""


def voters(chunks: Sequence[Span], count: int = VOTERS) -> list[Span]:
    """Which of a video's `chunks` to ask: at most `count`, spread over all of it, the longest one of each part."""
    parts = min(count, len(chunks))
    edges = [round(part * len(chunks) / parts) for part in range(parts + 1)] if parts else []
    return [max(chunks[start:end], key=lambda chunk: chunk.duration_s) for start, end in pairwise(edges)]


def vote(probabilities: Sequence[Mapping[str, float]], durations_s: Sequence[float]) -> tuple[str, float] | None:
    """The language that is most probable over all chunks, and its probability.

    Each chunk votes for every language with that language's probability, times the chunk's length: a long chunk that is
    sure counts more than a short one that guesses. Chunks that know nothing (no probabilities) do not vote; None where
    none does. Of equals the first in the alphabet, so that a vote can be repeated.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    heard_s = 0.0
    for chunk, duration_s in zip(probabilities, durations_s, strict=True):
        heard_s += duration_s if chunk else 0.0
        for language, probability in chunk.items():
            votes[language] += probability * duration_s
    if heard_s <= 0:
        return None
    winner = min(votes, key=lambda language: (-votes[language], language))
    return winner, votes[winner] / heard_s
