from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import merge_tokens

from deployments.aligner.paths import Placed, fill_gaps, has_path, place, spans_of, with_wildcard
from deployments.aligner.vocabulary import Spelling, spell, vocabulary

KNOWN = vocabulary({"<pad>": 0, "|": 1, "a": 2, "b": 3, "c": 4}, size=5, blank=0, delimiter=1)
CERTAIN, UNLIKELY = 0.92, 0.02


def emissions(signs: str) -> torch.Tensor:
    """A frame for each sign, nearly certain of it; `_` is blank."""
    columns = {"_": 0, "|": 1, "a": 2, "b": 3, "c": 4}
    probabilities = torch.full((len(signs), KNOWN.size), UNLIKELY)
    for frame, sign in enumerate(signs):
        probabilities[frame, columns[sign]] = CERTAIN
    return probabilities.log()


def spans(signs: str, *words: str) -> list[tuple[float, float] | None]:
    placed = place(emissions(signs), spell(words, KNOWN), KNOWN)
    return [word and (word.start, word.end) for word in placed]


def test_words_begin_at_their_first_letter_and_end_at_the_delimiter() -> None:
    """Frames of a path that one can see by eye, the last word ending at the delimiter after it."""
    assert spans("__a_b__|__c__b_|__", "ab", "cb") == [(2, 7), (10, 15)]


def test_the_last_word_ends_with_its_letter_where_no_delimiter_is_likely() -> None:
    """Models that never emit one at the end do not get one invented."""
    log_probs = emissions("_a_b____")
    log_probs[6] = torch.tensor([0.93, 0.07, 0.0001, 0.0001, 0.0001]).log()
    [word] = place(log_probs, spell(["ab"], KNOWN), KNOWN)
    assert word is not None
    assert (word.start, word.end) == (1, 4)


def test_a_letter_over_several_frames_begins_where_it_gains_most() -> None:
    """That is the frame which whisperX's search, with one frame per letter, would have taken."""
    log_probs = emissions("_aa_|_b_|")
    log_probs[1] = torch.tensor([0.35, 0.02, 0.59, 0.02, 0.02]).log()
    [first, _] = place(log_probs, spell(["a", "b"], KNOWN), KNOWN)
    assert first is not None
    assert first.start == 2


def test_scores_are_the_letters_probabilities() -> None:
    """Certain where the letters sound, small where others do; punctuation has no place."""
    right, wrong, dash = place(emissions("_a_b_|_c_|"), spell(["ab", "b", "-"], KNOWN), KNOWN)
    assert right is not None
    assert wrong is not None
    assert right.score == pytest.approx(CERTAIN, abs=1e-4)
    assert wrong.score == pytest.approx(UNLIKELY, abs=1e-4)
    assert dash is None


def test_a_wildcard_takes_the_sounds_that_no_letter_explains() -> None:
    """A numeral begins at its first sound and ends at the delimiter, whatever was said."""
    assert spans("_a_|_b_c_a_c_|_c_|", "a", "7", "c") == [(1, 3), (5, 13), (15, 17)]


def test_the_wildcards_column_is_the_likeliest_sound() -> None:
    """The best label that is not blank, in every frame, behind the model's own columns."""
    log_probs = torch.randn(9, KNOWN.size).log_softmax(-1)
    wild = with_wildcard(log_probs, KNOWN)
    assert wild.shape == (9, KNOWN.size + 1)
    assert torch.equal(wild[:, : KNOWN.size], log_probs)
    assert torch.equal(wild[:, KNOWN.wildcard], log_probs[:, 1:].max(dim=1).values)


def test_equal_neighbours_need_a_frame_between_them() -> None:
    """CTC cannot write a letter twice in a row: `fits` says so before the search raises."""
    twice = spell(["aa"], KNOWN)
    assert (has_path(twice, 2), has_path(twice, 3)) == (False, True)
    assert not has_path(Spelling(tokens=(), words=(range(0),)), 10)
    with pytest.raises(ValueError, match="do not fit"):
        place(emissions("aa"), twice, KNOWN)
    assert len(place(emissions("a_a"), twice, KNOWN)) == 1


def test_the_path_is_the_best_one() -> None:
    """Against all paths tried one by one: the score of the words is that of the likeliest path."""
    torch.manual_seed(1)
    for _ in range(20):
        log_probs = (torch.randn(6, KNOWN.size) * 2).log_softmax(-1)
        spelling = spell(["ab", "c"], KNOWN)
        found = place(log_probs, spelling, KNOWN)
        best = max(
            (sum(float(log_probs[frame, label]) for frame, label in enumerate(path)), path)
            for path in itertools.product(range(KNOWN.size), repeat=6)
            if tuple(label for label, _ in itertools.groupby(path) if label) == spelling.tokens
        )[1]
        starts = [best.index(token) for token in (spelling.tokens[0], spelling.tokens[3])]
        ends = [_last(best, token) for token in (spelling.tokens[0], spelling.tokens[3])]
        for word, start, end in zip(found, starts, ends, strict=True):
            assert word is not None
            assert start <= word.start <= end


def _last(path: tuple[int, ...], token: int) -> int:
    return len(path) - 1 - path[::-1].index(token)


@settings(deadline=None)
@given(
    frames=st.integers(1, 60),
    words=st.lists(st.text(alphabet="abc|7é한-♪", min_size=1, max_size=8), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_words_are_ordered_inside_and_complete(frames: int, words: list[str], seed: int) -> None:
    """Whatever sounds and whatever text, if it fits: every word, in order, without overlap, inside."""
    spelling = spell(words, KNOWN)
    if not has_path(spelling, frames):
        return
    torch.manual_seed(seed)
    filled = fill_gaps(place((torch.randn(frames, KNOWN.size) * 3).log_softmax(-1), spelling, KNOWN), frames)
    edges = [0, *(edge for word in filled for edge in (word.start, word.end)), frames]
    assert len(filled) == len(words)
    assert all(a <= b for a, b in itertools.pairwise(edges))
    assert all(0 <= word.score <= 1 for word in filled)


def test_unplaced_words_share_the_gap() -> None:
    """Two dashes between words halve what lies between, one at an edge takes all; their score is the others' mean."""
    placed = [None, Placed(start=2, end=4, score=0.5), None, None, Placed(start=8, end=9, score=1.0), None]
    filled = fill_gaps(placed, 12)
    assert [(word.start, word.end) for word in filled] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9), (9, 12)]
    assert np.isclose(filled[0].score, 0.75)
    with pytest.raises(ValueError, match="no word"):
        fill_gaps([None], 12)


@given(path=st.lists(st.integers(0, 3), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_spans_are_those_of_torchaudio(path: list[int], seed: int) -> None:
    """Whatever the path: the same runs with the same scores as `merge_tokens` finds."""
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=len(path)).astype(np.float32))
    expected = merge_tokens(torch.tensor(path), scores, blank=0)
    found = spans_of(np.array(path, np.int32), scores.numpy(), 0)
    assert [(span.start, span.end) for span in found] == [(span.start, span.end) for span in expected]
    assert [span.score for span in found] == pytest.approx([span.score for span in expected], abs=1e-5)
