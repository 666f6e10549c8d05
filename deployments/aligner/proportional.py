"""Word times by arithmetic: an utterance's time shared out by the letters of its words.

Knows nothing of Ray, and does not listen. It stands in where no acoustic aligner knows the language.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from deployments.types import Word

if TYPE_CHECKING:
    from deployments.types import Audio, Transcript, Utterance


class ProportionalAligner:
    """Shares an utterance's time among its words."""

    def align(self, audio: Audio, transcript: Transcript) -> Transcript:  # noqa: ARG002  the protocol's; arithmetic needs no sound
        """See `WordAligner`."""
        return replace(transcript, utterances=tuple(map(timed, transcript.utterances)))


def timed(utterance: Utterance) -> Utterance:
    """`utterance` with words, each as long as its share of the letters; the last one ends where the utterance ends."""
    if utterance.words or not utterance.text.split():
        return utterance
    texts = utterance.text.split()
    shares = list(accumulate((len(text) for text in texts), initial=0))
    edges_s = [utterance.start_s + utterance.duration_s * share / shares[-1] for share in shares[:-1]]
    edges_s.append(utterance.end_s)
    words = (
        Word(start_s=start_s, end_s=end_s, text=text, confidence=utterance.confidence)
        for text, (start_s, end_s) in zip(texts, pairwise(edges_s), strict=True)
    )
    return replace(utterance, words=tuple(words))
