from __future__ import annotations

import pytest

from deployments.transcriber.passages import vote, voters
from deployments.types import Span


def test_sure_chunks_outvote_guesses() -> None:
    """Two chunks that lean to English lose against one that is sure of Korean."""
    chunks = [{"en": 0.5, "ko": 0.45}, {"en": 0.51, "ko": 0.45}, {"ko": 0.99, "en": 0.01}]
    language, probability = vote(chunks, [10, 10, 10]) or ("", 0.0)
    assert language == "ko"
    assert probability == pytest.approx((0.45 + 0.45 + 0.99) / 3)


def test_long_chunks_count_more() -> None:
    """A vote weighs as much as its chunk is long."""
    assert vote([{"en": 0.9}, {"ko": 0.9}], [1, 20]) == ("ko", pytest.approx(0.9 * 20 / 21))


def test_the_first_chunk_decides_nothing_by_itself() -> None:
    """Music at the start that sounds Welsh does not make the video Welsh."""
    chunks = [{"cy": 0.6, "ko": 0.2}] + [{"ko": 0.95}] * 4
    assert (vote(chunks, [30] * 5) or ("",))[0] == "ko"


def test_who_knows_nothing_does_not_vote() -> None:
    """Silent chunks take nothing from the probability; with none that knows, there is no language."""
    assert vote([{}, {"en": 0.8}], [30, 10]) == ("en", pytest.approx(0.8))
    assert vote([{}, {}], [30, 10]) is None
    assert vote([], []) is None


def test_equals_are_decided_the_same_way_every_time() -> None:
    """A tie goes to the first in the alphabet, whatever the order of the chunks."""
    assert vote([{"ko": 0.5}, {"en": 0.5}], [1, 1]) == vote([{"en": 0.5}, {"ko": 0.5}], [1, 1]) == ("en", 0.25)


def test_voters_are_spread_and_long() -> None:
    """Ten chunks, five voters: the longer one of each two, from the start to the end; of few chunks, all."""
    chunks = [Span(start_s=10 * i, end_s=10 * i + (9 if i in {0, 3, 4, 6, 9} else 2)) for i in range(10)]
    assert [chunk.start_s for chunk in voters(chunks)] == [0, 30, 40, 60, 90]
    assert voters(chunks[:3]) == chunks[:3]
    assert voters(chunks[:1]) == chunks[:1]
    assert voters([]) == []
    assert len(voters(chunks, 4)) == 4
