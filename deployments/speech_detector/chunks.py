"""Joins spans of speech over the borders of pieces, and groups them into chunks for the recogniser. Pure Python."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from deployments.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOUCH_S = 0.02
"""Spans on both sides of a piece's border are joined if at most a frame lies between them."""
LATE_SHARE = 0.5
"""A chunk is cut at its widest pause after this share of its maximum length, so that no chunk is needlessly short."""
MARGIN_S = 0.3
"""Extends a chunk into the pauses beside it: the detector's edges cut into first and last sounds."""
ROUNDING_S = 1e-7
"""Equal parts of a long span may exceed the maximum by rounding."""

Chunk = TypeVar("Chunk", bound=Span)


def join_spans(lists: Iterable[Sequence[Span]]) -> list[Span]:
    """Join the spans of consecutive pieces; speech that crosses a border becomes one span again.

    Spans that touch inside a piece stay apart: the detector cut them on purpose.
    """
    joined: list[Span] = []
    for spans in lists:
        rest = list(spans)
        if joined and rest and rest[0].start_s - joined[-1].end_s <= TOUCH_S:
            joined[-1] = Span(start_s=joined[-1].start_s, end_s=rest.pop(0).end_s)
        joined += rest
    return joined


def cut_chunks(spans: Sequence[Span], max_s: float) -> list[Span]:
    """Group ascending `spans` into chunks of at most `max_s`, cut at their widest late pauses.

    A span longer than `max_s` is cut into equal parts.
    """
    waiting = [part for span in spans for part in parts(span, max_s)]
    chunks = []
    while waiting:
        start_s = waiting[0].start_s
        fitting = [span for span in waiting if span.end_s - start_s <= max_s + ROUNDING_S]
        count = len(fitting) if len(fitting) == len(waiting) else _widest_late_pause(waiting[: len(fitting) + 1], max_s)
        chunks.append(Span(start_s=start_s, end_s=waiting[count - 1].end_s))
        waiting = waiting[count:]
    return chunks


def with_margins(chunks: Sequence[Chunk], max_s: float) -> list[Chunk]:
    """Extend ascending `chunks` by up to `MARGIN_S` on both sides, up to a length of `max_s`.

    Neighbours take half of a pause each. The last chunk may reach past the audio's end.
    """
    edges_s = [0.0, *((before.end_s + after.start_s) / 2 for before, after in pairwise(chunks)), float("inf")]
    widened = []
    for chunk, (earliest_s, latest_s) in zip(chunks, pairwise(edges_s), strict=False):  # edges of no chunk are left
        margin_s = max(0.0, min(MARGIN_S, (max_s - chunk.duration_s) / 2))
        start_s = min(chunk.start_s, max(earliest_s, chunk.start_s - margin_s))  # rounding keeps no edge inside
        end_s = max(chunk.end_s, min(latest_s, chunk.end_s + margin_s))
        widened.append(replace(chunk, start_s=start_s, end_s=end_s))
    return widened


def speech_share(chunk: Span, spans: Sequence[Span]) -> float:
    """Return the share of `chunk`, 0-1, that the detected `spans` cover; they do not overlap each other."""
    return min(1.0, sum(chunk.overlap_s(span) for span in spans) / chunk.duration_s) if chunk.duration_s else 0.0


def parts(span: Span, max_s: float) -> list[Span]:
    """Cut `span` into equal parts, none longer than `max_s`."""
    count = max(1, -int(-span.duration_s // max_s))
    borders = [span.start_s + span.duration_s * i / count for i in range(count)] + [span.end_s]
    return [Span(start_s=start, end_s=end) for start, end in pairwise(borders)]


def _widest_late_pause(spans: Sequence[Span], max_s: float) -> int:
    """Return how many of `spans` to take, all but the last of which fit; of equal pauses the latest is used."""
    start_s = spans[0].start_s
    pauses = [after.start_s - before.end_s for before, after in pairwise(spans)]
    late = [i for i, span in enumerate(spans[:-1]) if span.end_s - start_s >= LATE_SHARE * max_s]
    return 1 + max(late or [len(pauses) - 1], key=lambda i: (round(pauses[i], 3), i))
