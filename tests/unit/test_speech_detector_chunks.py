from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.speech_detector.chunks import cut_chunks, join_spans, speech_share, with_margins
from deployments.types import Span


def spans(*edges: tuple[float, float]) -> list[Span]:
    return [Span(start_s=start, end_s=end) for start, end in edges]


@st.composite
def speech(draw: st.DrawFn) -> list[Span]:
    made, at = [], 0.0
    for pause, length in draw(st.lists(st.tuples(st.floats(0, 5), st.floats(0.05, 70)), max_size=30)):
        made.append(Span(start_s=at + pause, end_s=at + pause + length))
        at = made[-1].end_s
    return made


def test_speech_over_a_border_of_pieces_becomes_one_span() -> None:
    """Speech that runs from one piece into the next is joined; a pause at the border stays."""
    joined = join_spans([spans((1, 2), (290, 300)), spans((300, 310), (320, 330)), [], spans((601, 602))])
    assert joined == spans((1, 2), (290, 310), (320, 330), (601, 602))


def test_cuts_inside_a_piece_survive_joining() -> None:
    """Where the detector cut long speech on purpose, it stays cut."""
    assert join_spans([spans((0, 7), (7, 12)), spans((20, 21))]) == spans((0, 7), (7, 12), (20, 21))


def test_a_chunk_ends_at_its_widest_late_pause() -> None:
    """Of the pauses in a chunk's second half, the widest is where it is cut, even if more would fit."""
    found = cut_chunks(spans((0, 6), (6.1, 9), (10, 12), (12.2, 14), (14.3, 16)), 15)
    assert found == spans((0, 9), (10, 16))


def test_an_early_pause_does_not_make_a_chunk_short() -> None:
    """A wide pause in the first half of what fits does not cut, however wide."""
    assert cut_chunks(spans((0, 1), (5, 10), (10.1, 14), (14.1, 20)), 15)[0] == Span(start_s=0, end_s=14)


def test_a_span_that_is_too_long_is_cut_evenly() -> None:
    """Speech of 40 s without any pause becomes three parts of 13.3 s for a recogniser of 15 s."""
    found = cut_chunks(spans((2, 42)), 15)
    assert [round(chunk.duration_s, 3) for chunk in found] == [13.333] * 3
    assert (found[0].start_s, found[-1].end_s) == (2, 42)


@example([Span(start_s=1e-05, end_s=60.00001)], 15.0)  # a quarter of it is longer than 15 s by its last bit
@given(speech(), st.sampled_from([15.0, 30.0]))
def test_chunks_cover_all_speech_in_order_and_none_is_too_long(speech: list[Span], max_s: float) -> None:
    """Whatever the speech: every chunk fits the recogniser, chunks do not overlap, and nothing is lost."""
    chunks = cut_chunks(speech, max_s)
    assert all(chunk.duration_s <= max_s + 1e-6 for chunk in chunks)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(chunks))
    for span in speech:
        assert sum(span.overlap_s(chunk) for chunk in chunks) == pytest.approx(span.duration_s)


@given(speech())
def test_no_chunk_begins_or_ends_in_silence(speech: list[Span]) -> None:
    """A chunk starts with a span's start (or a cut inside one) and ends with an end."""
    for chunk in cut_chunks(speech, 30.0):
        assert any(span.start_s <= chunk.start_s < span.end_s for span in speech)
        assert any(span.start_s < chunk.end_s <= span.end_s for span in speech)


def test_a_chunk_is_heard_with_the_pauses_beside_it() -> None:
    """Three tenths of a second on either side, half of a shorter pause, nothing where speech was cut or before zero."""
    chunks = spans((0.1, 10), (10.2, 20), (20, 29), (40, 50))
    widened = [(round(chunk.start_s, 6), round(chunk.end_s, 6)) for chunk in with_margins(chunks, 30.0)]
    assert widened == [(0, 10.1), (10.1, 20), (20, 29.3), (39.7, 50.3)]


def test_margins_make_no_chunk_too_long() -> None:
    """A chunk that is nearly full gets what room there is, half of it on either side; a full one none."""
    chunks = spans((5, 34.9), (50, 80))
    widened = [(round(chunk.start_s, 6), round(chunk.end_s, 6)) for chunk in with_margins(chunks, 30.0)]
    assert widened == [(4.95, 34.95), (50, 80)]


@given(speech(), st.sampled_from([15.0, 30.0]))
def test_margins_keep_chunks_apart(speech: list[Span], max_s: float) -> None:
    """Whatever the speech: no chunk loses any of it, grows beyond the limit or reaches into its neighbour."""
    chunks = cut_chunks(speech, max_s)
    widened = with_margins(chunks, max_s)
    assert all(
        wide.start_s <= chunk.start_s and wide.end_s >= chunk.end_s for wide, chunk in zip(widened, chunks, strict=True)
    )
    assert all(chunk.duration_s <= max_s + 1e-6 for chunk in widened)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(widened))


def test_speech_share_is_the_covered_part() -> None:
    """Of ten seconds, three and a half are speech; spans that stick out count inside only; nothing is no share."""
    assert speech_share(Span(start_s=10, end_s=20), spans((8, 11), (13, 15), (19.5, 30))) == pytest.approx(0.35)
    assert speech_share(Span(start_s=10, end_s=20), spans((0, 30))) == 1
    assert speech_share(Span(start_s=10, end_s=20), []) == 0
    assert speech_share(Span(start_s=10, end_s=10), spans((0, 30))) == 0
