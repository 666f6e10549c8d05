"""Joins the pieces of a video, and trims the turns of the whole: plain functions over arrays, for every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deployments.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from deployments.diarizer.protocol import Embeddings, Segmentation


def whole(
    segmentations: Sequence[Segmentation], embeddings: Sequence[Embeddings]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scores (windows, frames, local speakers) and vectors (windows, local speakers, dimension) of all windows.

    Raises ValueError if pieces are missing or duplicated.
    """
    scores = joined([(each.first_window, each.scores) for each in segmentations])
    vectors = joined([(each.first_window, each.vectors) for each in embeddings])
    if len(scores) != len(vectors):
        raise ValueError(f"{len(scores)} windows of scores, {len(vectors)} of embeddings")
    return scores, vectors


def has_no_voice(vectors: NDArray[np.float32]) -> bool:
    """Return whether no local speaker has enough speech for a vector."""
    return bool(np.isnan(vectors).any(axis=-1).all())


def joined(pieces: Sequence[tuple[int, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Join arrays, given with their first windows. Raises ValueError if windows are missing or duplicated."""
    ordered = sorted((piece for piece in pieces if len(piece[1])), key=lambda piece: piece[0])
    expected = 0
    for first, array in ordered:
        if first != expected:
            raise ValueError(f"expected window {expected}, got {first}")
        expected += len(array)
    return np.concatenate([array for _, array in ordered or pieces])


def until(end_s: float, turns: Iterable[Turn]) -> list[Turn]:
    """Cut `turns` at `end_s`, since the last window may reach past the video's end."""
    return [
        Turn(start_s=turn.start_s, end_s=min(turn.end_s, end_s), speaker=turn.speaker)
        for turn in turns
        if turn.start_s < end_s
    ]


def evenly_spread(count: int, most: int) -> NDArray[np.int_]:
    """Return at most `most` of `count` indices, evenly spread."""
    indices: NDArray[np.int_] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    return indices
