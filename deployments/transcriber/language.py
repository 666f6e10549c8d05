"""Finds the spoken language by a vote of several chunks. Knows nothing of engines."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deployments.types import Span

VOTERS = 5
"""Most chunks that vote; each costs a run of the encoder."""


def voters(chunks: Sequence[Span], count: int = VOTERS) -> list[Span]:
    """Return the chunks that vote: at most `count`, the longest one of each of `count` equal parts of `chunks`."""
    parts = min(count, len(chunks))
    edges = [round(part * len(chunks) / parts) for part in range(parts + 1)] if parts else []
    return [max(chunks[start:end], key=lambda chunk: chunk.duration_s) for start, end in pairwise(edges)]


def vote(probabilities: Sequence[Mapping[str, float]], durations_s: Sequence[float]) -> tuple[str, float] | None:
    """Return the most probable language over all chunks and its probability; None without any probabilities.

    Each chunk votes for every language with that language's probability times the chunk's duration. Chunks without
    probabilities do not vote. Of equal languages the first one in the alphabet wins.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    voting_s = 0.0
    for chunk, duration_s in zip(probabilities, durations_s, strict=True):
        voting_s += duration_s if chunk else 0.0
        for language, probability in chunk.items():
            votes[language] += probability * duration_s
    if voting_s <= 0:
        return None
    winner = min(votes, key=lambda language: (-votes[language], language))
    return winner, votes[winner] / voting_s
