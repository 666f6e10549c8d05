"""Repetition: what people say again and again stays, what the recogniser writes again and again goes.

What tells the two apart is time: an invented phrase covers minutes with a few words, or seconds with hundreds. And
chance: a text that is drawn anew repeats itself in every draw where the sound does. Plain functions over texts; knows
nothing of models.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import is_phantom
from deployments.transcriber.word_times import letters
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from deployments.types import Span, Transcript, Utterance

MAX_PHRASE_WORDS: Final = 20
REPEATS: Final = 5
"""A phrase that comes so often in a row may be a loop; nobody doubts "no no no" and "네 네 네"."""
LETTER_REPEATS: Final = 12
"""The same for letters inside a word, without digits: a number may have many zeros."""

SLOWEST: Final = 2.5
"""Letters per second of detected speech. People who repeat a word say 2.9 and more (synthesized "no", with pauses), and
14 in plain speech; of loops that Whisper base invented over speech that it did not understand, most had 0.4 to 2.1."""
FASTEST: Final = 35.0
"""The same; twice and a half as fast as people speak."""
CHUNKS: Final = 3
"""The same text of so many chunks in a row is doubted: a minute and more."""
UNLIKELY: Final = 0.5
"""Confidence (0-1) below which a text that comes again and again is not believed."""

_LETTER_LOOP: Final = re.compile(r"([^\W\d]{1,8}?)\1{" + str(LETTER_REPEATS - 1) + ",}")
_MARKS: Final = re.compile(r"[^\w]+")


def cut_loops(text: str) -> str:
    """`text` with each phrase that comes `REPEATS` times in a row, or more often, written once.

    Case and punctuation do not count; what is left of a loop that the text's end cuts off goes, too.
    """
    words = _without_letter_loops(text)
    plain = [_plain(word) for word in words]
    kept: list[str] = []
    at = 0
    while at < len(words):
        size, end = _loop(plain, at)
        kept += words[at : at + size]
        at = end
    return " ".join(kept)


def cut_letters(text: str) -> str:
    """`text` with each cluster of letters that comes `LETTER_REPEATS` times in a row inside a word written once."""
    return " ".join(_without_letter_loops(text))


def looped(text: str) -> frozenset[str]:
    """The phrases that come `REPEATS` times in a row, in plain letters."""
    plain = [_plain(word) for word in _without_letter_loops(text)]
    found = set()
    at = 0
    while at < len(plain):
        size, end = _loop(plain, at)
        if end > at + 1:
            found.add(" ".join(plain[at : at + size]))
        at = end
    return frozenset(found)


def fits(text: str, speech_s: float) -> bool:
    """Whether people can have said `text` in so many seconds of speech."""
    return SLOWEST * speech_s <= sum(map(letters, text.split())) <= FASTEST * speech_s


def without_repeats(heard: Mapping[int, Transcript], speech: Sequence[Span]) -> dict[int, Transcript]:
    """The transcripts of a video's chunks, by number, without a text that the recogniser writes chunk after chunk.

    It goes where it is the whole text of `CHUNKS` chunks in a row, and nothing speaks for it there: it is too short for
    the detected `speech`, unlikely, or one of the phantom phrases. Chunks without any text do not count.
    """
    kept = dict(sorted(heard.items()))
    told = [(number, each) for number, each in kept.items() if each.utterances]
    for phrase, group in groupby(told, key=lambda pair: _phrase(pair[1].utterances)):
        run = [(number, each) for number, each in group if _is_doubtful(each, speech)]
        if not phrase or len(run) < CHUNKS:
            continue
        for number, each in run:
            gone = ResultWarning(code=WarningCode.REPEATED_TEXT_DROPPED, count=1)
            kept[number] = replace(
                each, utterances=(), warnings=(*each.warnings, gone), dropped=each.dropped + len(each.utterances)
            )
    return kept


def _is_doubtful(transcript: Transcript, speech: Sequence[Span]) -> bool:
    """Whether nothing but the recogniser speaks for a chunk's text."""
    text = " ".join(each.text for each in transcript.utterances)
    speech_s = sum(each.overlap_s(span) for each in transcript.utterances for span in speech)
    known = [each.confidence for each in transcript.utterances if each.confidence is not None]
    unlikely = bool(known) and min(known) < UNLIKELY
    return unlikely or not fits(text, speech_s) or all(is_phantom(each.text) for each in transcript.utterances)


def _phrase(utterances: Iterable[Utterance]) -> str:
    """The whole text in plain words; once, where it is a phrase again and again."""
    plain = [_plain(word) for each in utterances for word in each.text.split()]
    size = next((size for size in range(1, len(plain)) if plain[size:] == plain[:-size]), len(plain))
    return " ".join(plain[:size])


def _without_letter_loops(text: str) -> list[str]:
    """The words."""
    return [_LETTER_LOOP.sub(r"\1", word) for word in text.split()]


def _plain(word: str) -> str:
    return _MARKS.sub("", word).casefold()


def _loop(words: Sequence[str], at: int) -> tuple[int, int]:
    """Length of the phrase that begins at `at`, and where its repetitions end; without a loop, one word."""
    for size in range(1, min(MAX_PHRASE_WORDS, (len(words) - at) // REPEATS) + 1):
        end = at + size
        while end < len(words) and words[end] == words[end - size]:
            end += 1
        repeats, rest = divmod(end - at, size)
        if repeats >= REPEATS:
            return size, end if end == len(words) else end - rest
    return 1, at + 1
