from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.aligner.proportional import interpolated
from deployments.types import Transcript, Utterance, Word
from deployments.warnings import ResultWarning, WarningCode

KEPT = ResultWarning(code=WarningCode.LOOP_CUT, count=1)


def align(*utterances: Utterance) -> tuple[Utterance, ...]:
    answer = interpolated(Transcript(language="en", utterances=utterances, warnings=(KEPT,)))
    assert (answer.language, answer.warnings) == ("en", (KEPT,))
    return answer.utterances


def test_words_share_their_utterance_by_letters() -> None:
    """Three words of 1, 2 and 5 letters share eight seconds as 1, 2 and 5."""
    [utterance] = align(Utterance(start_s=10, end_s=18, text="a bc defgh", confidence=0.5))
    assert [(w.text, w.start_s, w.end_s) for w in utterance.words] == [("a", 10, 11), ("bc", 11, 13), ("defgh", 13, 18)]
    assert {word.probability for word in utterance.words} == {0.5}


@given(
    start_s=st.floats(0, 3600),
    duration_s=st.floats(0, 30),
    words=st.lists(st.text(alphabet="abcé가1", min_size=1, max_size=12), max_size=40),
)
def test_words_are_ordered_inside_and_complete(start_s: float, duration_s: float, words: list[str]) -> None:
    """Whatever the text and times: every word is there, in order, without overlap, from start to end."""
    [utterance] = align(Utterance(start_s=start_s, end_s=start_s + duration_s, text=" ".join(words)))
    assert [word.text for word in utterance.words] == words
    edges = [edge for word in utterance.words for edge in (word.start_s, word.end_s)]
    assert all(a <= b for a, b in itertools.pairwise(edges))
    if words:
        assert (edges[0], edges[-1]) == (utterance.start_s, utterance.end_s)


def test_words_that_have_times_stay() -> None:
    """An utterance that the recogniser has timed itself comes back as it was."""
    timed = Utterance(start_s=0, end_s=2, text="yes", words=(Word(start_s=1.5, end_s=1.7, text="yes"),))
    assert align(timed) == (timed,)


@pytest.mark.parametrize("text", ["", "   "])
def test_no_text_no_words(text: str) -> None:
    """Nothing said, nothing timed, nothing raised."""
    assert align(Utterance(start_s=1, end_s=2, text=text))[0].words == ()
