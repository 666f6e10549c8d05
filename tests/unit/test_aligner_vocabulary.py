from __future__ import annotations

import string

import pytest

from deployments.aligner.vocabulary import spell, spell_word, vocabulary, words_of
from deployments.types import joined

LABELS = {"<pad>": 0, "|": 1, "[UNK]": 2} | {letter: 3 + i for i, letter in enumerate(string.ascii_lowercase + "'")}
KNOWN = vocabulary(LABELS, size=30, blank=0, delimiter=1)
UPPER = vocabulary({label.upper(): column for label, column in LABELS.items()}, size=30, blank=0, delimiter=1)
W = KNOWN.wildcard
NAMES = {column: label for label, column in LABELS.items()} | {W: "*"}


def spelled(word: str) -> str:
    return "".join(NAMES[token] for token in spell_word(word, KNOWN))


@pytest.mark.parametrize(
    ("word", "letters"),
    [
        ("Hello", "hello"),
        ("don\u2019t", "don't"),
        ("café", "cafe"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),
        ("\uff21\uff42\uff43", "abc"),
        ("yes,", "yes"),
        ("(well-known)", "wellknown"),
        ("7", "****"),
        ("$", "****"),
        ("100%", "************" + "*"),
        ("2026", "****" * 3 + "*"),
        ("B2", "b****"),
        ("한국", "**"),
        ("a|b", "a****b"),
        ("<pad>", "****pad****"),
        ("!", ""),
        ("♪", ""),
        ("—", ""),
        ("...", ""),
        ("\u0301", ""),
    ],
)
def test_letters_are_found_and_the_rest_is_wild_or_silent(word: str, letters: str) -> None:
    """Case, accents, apostrophes and ligatures are seen through; numerals and signs are wild; punctuation is silent."""
    assert spelled(word) == letters


def test_a_vocabulary_in_capitals_is_known_too() -> None:
    """Torchaudio's bundles write in capitals."""
    assert spell_word("Hello", UPPER) == spell_word("hello", KNOWN)


def test_a_letter_of_its_own_stays_itself() -> None:
    """A model that has é gets é; composed Hangul is one letter, and is taken apart where only its parts are known."""
    french = vocabulary(LABELS | {"é": 30}, size=31, blank=0, delimiter=1)
    assert spell_word("é", french) == spell_word("e\u0301", french) == [30]
    jamo = vocabulary({"<pad>": 0, "|": 1, "\u1112": 2, "\u1161": 3, "\u11ab": 4}, size=5, blank=0, delimiter=1)
    assert spell_word("한", jamo) == [2, 3, 4]


def test_blank_and_columns_beyond_the_model_are_no_letters() -> None:
    """A dash is not the blank that torchaudio writes as one, and a label without a column is unknown."""
    known = vocabulary({"-": 0, "|": 1, "a": 2, "x": 3, "b": 4}, size=3, blank=0, delimiter=1)
    assert spell_word("a-b", known) == [2, known.wildcard]


def test_where_letters_are_syllables_a_numeral_is_one() -> None:
    """A Korean or Chinese model says 7 in one sign."""
    many = vocabulary({chr(0xAC00 + i): i + 2 for i in range(1000)}, size=1002, blank=0, delimiter=1)
    assert spell_word("73", many) == [many.wildcard] * 2


def test_delimiters_lie_between_spoken_words_only() -> None:
    """A dash of its own brings neither tokens nor a second delimiter."""
    spelling = spell(["—", "a", "\u2013", "bc", "!"], KNOWN)
    assert "".join(NAMES[token] for token in spelling.tokens) == "a|bc"
    assert spelling.words == (range(0), range(1), range(1, 1), range(2, 4), range(4, 4))


def test_without_a_delimiter_words_follow_each_other() -> None:
    """Some vocabularies have none."""
    bare = vocabulary(LABELS, size=30, blank=0, delimiter=None)
    assert spell(["a", "b"], bare).words == (range(1), range(1, 2))


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        (" It costs  42 $ ! ", "en", ["It", "costs", "42", "$", "!"]),
        ("오늘 학교", "ko", ["오늘", "학교"]),
        ("今天\uff0c我用GPT写2026年。", "zh", ["今", "天\uff0c", "我", "用", "GPT", "写", "2026", "年。"]),
        ("カフェ です", "ja", ["カ", "フ", "ェ", "で", "す"]),
        ("", "zh", []),
    ],
)
def test_words_are_between_spaces_or_single_characters(text: str, language: str, words: list[str]) -> None:
    """As in whisperX: characters in Chinese and Japanese, with punctuation kept at the word before it."""
    assert words_of(text, language) == words


@pytest.mark.parametrize(
    ("text", "language", "line"),
    [
        ("Wait, 7 words.", "en", "Wait, 7 words."),
        ("오늘 학교 회의", "ko", "오늘 학교 회의"),
        ("今天\uff0c我很好。", "zh", "今天\uff0c我很好。"),
        ("用GPT写。", "zh", "用 GPT 写。"),
        ("これはカフェです。", "ja", "これはカフェです。"),
    ],
)
def test_words_become_a_line_again(text: str, language: str, line: str) -> None:
    """Spaces between words, none between Chinese or Japanese characters."""
    assert joined(words_of(text, language)) == line
