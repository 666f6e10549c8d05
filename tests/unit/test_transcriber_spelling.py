from __future__ import annotations

import pytest

from deployments.transcriber.spelling import written


@pytest.mark.parametrize("entry", ["<s>", "</s>", "<sil>", "[NOISE]", "[SPEECH]", "++UH++", "<sil>(2)"])
def test_noises_are_no_words(entry: str) -> None:
    """What the decoder heard as silence or noise never reaches the text."""
    assert written(entry) is None


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("and(2)", "and"),
        ("the(12)", "the"),
        ("i", "I"),
        ("i'm(2)", "I'm"),
        ("in", "in"),
        ("i.", "I."),
        ("monday's", "Monday's"),
        ("march", "march"),
        ("mr", "Mr."),
        ("dr.(2)", "Dr."),
        ("mrs", "Mrs."),
        ("u.", "U."),
        ("a.m.", "A.M."),
        ("t.'s", "T.'s"),
        ("'bout", "'bout"),
    ],
)
def test_entries_are_written_as_people_write(entry: str, word: str) -> None:
    """Pronunciation marks go; the pronoun, days, months, titles and initials get their capitals; the rest stays."""
    assert written(entry) == word
