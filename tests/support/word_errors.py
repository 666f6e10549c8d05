"""How many words of a transcript are wrong."""

from __future__ import annotations

import jiwer

PLAIN = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)


def word_error_rate(reference: str, heard: str) -> float:
    """By jiwer, in lower case and without punctuation."""
    return float(jiwer.wer(reference, heard, reference_transform=PLAIN, hypothesis_transform=PLAIN))
