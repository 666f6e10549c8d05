from __future__ import annotations

import numpy as np
import pytest

from deployments.transcriber.attention import Attended, Tokenized, attended_words


def words_of(
    text: str, offsets: list[tuple[int, int]], starts_s: list[float], probabilities: list[float], language: str
) -> list[tuple[str, float, float]]:
    tokenized = Tokenized(text=text, ids=tuple(range(len(offsets))), offsets=tuple(offsets))
    attended = Attended(starts_s=np.array(starts_s), probabilities=np.array(probabilities))
    found = attended_words(tokenized, attended, language)
    return [(each.text, round(each.start_s, 6), round(each.probability, 6)) for each in found]


def test_a_word_starts_with_its_first_token_and_has_the_mean_of_their_probabilities() -> None:
    """`river's` of two tokens; a comma's probability is nobody's; punctuation sticks to its word."""
    offsets = [(0, 6), (6, 7), (7, 13), (13, 15), (15, 21)]
    found = words_of(" Hello, river's naïve", offsets, [0, 0.4, 0.5, 0.9, 1.0, 1.4], [0.8, 0.1, 0.6, 0.4, 1], "en")
    assert found == [("Hello,", 0.0, 0.8), ("river's", 0.5, 0.5), ("naïve", 1.0, 1.0)]


def test_letters_that_tokens_tear_are_one() -> None:
    """A syllable of Hangul in three tokens of its bytes, the first of them with the space before it."""
    offsets = [(0, 2), (2, 4), (3, 4), (3, 4), (4, 5)]
    found = words_of(" 기 뷁다", offsets, [0, 0.2, 0.3, 0.4, 0.6, 0.8], [1, 0.3, 0.6, 0.9, 0.8], "ko")
    assert found == [("기", 0.0, 1.0), ("뷁다", 0.2, pytest.approx(0.65))]


def test_words_of_one_token_share_its_time_by_letters() -> None:
    """Chinese is told by characters, of which a token may have several; signs stick to the one before."""
    found = words_of("今天天,好", [(0, 2), (2, 3), (3, 4), (4, 5)], [1, 1.4, 1.6, 1.7, 2], [0.5, 0.7, 0.1, 0.9], "zh")
    assert found == [("今", 1.0, 0.5), ("天", 1.2, 0.5), ("天,", 1.4, 0.7), ("好", 1.7, 0.9)]


def test_a_word_of_signs_only_keeps_its_own_probability() -> None:
    """A dash between words is a word of the text; rounding never makes a probability of more than 1."""
    found = words_of(" a \u2013 b", [(0, 2), (2, 4), (4, 6)], [0, 1, 2, 3], [0.9, 0.3, 1.0000001], "en")
    assert found == [("a", 0.0, 0.9), ("\u2013", 1.0, 0.3), ("b", 2.0, 1.0)]
