"""Finds what the recogniser repeats and people do not: loops in one text, and one text in chunk after chunk.

Two measures decide. Time: a hallucinated repetition has too few letters for its speech (a phrase over minutes)
or too many (hundreds of words in seconds). Chance: a text that is sampled anew loops every time only where the sound
does. Plain functions over texts; knows nothing of models.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Final

from deployments.hallucinations.phrases import is_hallucinated_phrase
from deployments.spoken_letters import spoken_letters
from deployments.warnings import ResultWarning, WarningCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from deployments.types import Span, Transcript, Utterance

MAX_PHRASE_WORDS: Final = 20
REPEATS: Final = 5
"""A phrase that comes so often in a row may be a loop; "no no no" and "네 네 네" are not doubted."""
LETTER_REPEATS: Final = 12
"""The same for letters inside a word, without digits: a number may have many zeros."""

SLOWEST: Final = 2.5
"""Letters per second of detected speech. People who repeat a word say 2.9 and more (synthesized "no", with pauses), and
14 in plain speech; of loops that Whisper base hallucinated over speech that it did not understand, most had 0.4-2.1."""
FASTEST: Final = 35.0
"""Letters per second of detected speech: two and a half times as fast as people speak."""
CHUNKS: Final = 3
"""The same text in so many chunks in a row, a minute and more, is doubted."""
UNLIKELY: Final = 0.5
"""A text that comes in chunk after chunk is not believed below this confidence, 0-1."""

_LETTER_LOOP: Final = re.compile(r"([^\W\d]{1,8}?)\1{" + str(LETTER_REPEATS - 1) + ",}")
_MARKS: Final = re.compile(r"[^\w]+")


def cut_loops(text: str) -> str:
    """Return `text` with each phrase that comes `REPEATS` times or more in a row written once.

    Case and punctuation do not count. The beginning of a further repetition at the end of `text` is cut, too.
    """
    words = _without_letter_loops(text)
    phrases = [words[start : start + size] for start, size, _ in _phrases([_plain(word) for word in words])]
    return " ".join(word for phrase in phrases for word in phrase)


def cut_letter_loops(text: str) -> str:
    """Return `text` with letters that come `LETTER_REPEATS` times or more in a row inside a word written once."""
    return " ".join(_without_letter_loops(text))


def looped_phrases(text: str) -> frozenset[str]:
    """Return the phrases that come `REPEATS` times or more in a row, in lower case without punctuation."""
    plain = [_plain(word) for word in _without_letter_loops(text)]
    loops = [(start, size) for start, size, end in _phrases(plain) if end > start + size]
    return frozenset(" ".join(plain[start : start + size]) for start, size in loops)


def is_speakable(text: str, speech_s: float) -> bool:
    """Return whether people can have said `text` in `speech_s` seconds of speech."""
    return SLOWEST * speech_s <= _letters(text) and not is_too_fast(text, speech_s)


def is_too_fast(text: str, speech_s: float) -> bool:
    """Return whether `speech_s` seconds of speech are too short for people to say `text`."""
    return _letters(text) > FASTEST * speech_s


def _letters(text: str) -> float:
    return sum(map(spoken_letters, text.split()))


def drop_repeated_texts(transcripts: Mapping[int, Transcript], speech: Sequence[Span]) -> dict[int, Transcript]:
    """Return a video's `transcripts`, by number of chunk, without a text that comes in chunk after chunk.

    It is dropped where it is the whole text of `CHUNKS` chunks in a row and doubtful in each: too long or too short for
    the detected `speech`, unlikely, or a hallucinated phrase. Chunks without text do not interrupt the row.
    """
    filtered = dict(sorted(transcripts.items()))
    with_text = [(number, each) for number, each in filtered.items() if each.utterances]
    for phrase, group in groupby(with_text, key=lambda pair: _phrase(pair[1].utterances)):
        doubtful = [(number, each) for number, each in group if _is_doubtful(each, speech)]
        if not phrase or len(doubtful) < CHUNKS:
            continue
        for number, each in doubtful:
            warning = ResultWarning(code=WarningCode.REPEATED_TEXT_DROPPED, count=1)
            filtered[number] = replace(each, utterances=(), warnings=(*each.warnings, warning))
    return filtered


def _is_doubtful(transcript: Transcript, speech: Sequence[Span]) -> bool:
    """Return whether a chunk's text is unlikely, does not fit its speech, or is hallucinated phrases only."""
    text = " ".join(each.text for each in transcript.utterances)
    speech_s = sum(each.overlap_s(span) for each in transcript.utterances for span in speech)
    confidences = [each.confidence for each in transcript.utterances if each.confidence is not None]
    return (
        (bool(confidences) and min(confidences) < UNLIKELY)
        or not is_speakable(text, speech_s)
        or all(is_hallucinated_phrase(each.text) for each in transcript.utterances)
    )


def _phrase(utterances: Iterable[Utterance]) -> str:
    """Return the whole text in plain words; where it is one phrase again and again, that phrase once."""
    plain = [_plain(word) for each in utterances for word in each.text.split()]
    size = next((size for size in range(1, len(plain)) if plain[size:] == plain[:-size]), len(plain))
    return " ".join(plain[:size])


def _without_letter_loops(text: str) -> list[str]:
    return [_LETTER_LOOP.sub(r"\1", word) for word in text.split()]


def _plain(word: str) -> str:
    return _MARKS.sub("", word).casefold()


def _phrases(words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Yield start and length of each phrase, and the end of its repetitions; words outside loops one by one."""
    start = 0
    while start < len(words):
        size, end = _loop(words, start)
        yield start, size, end
        start = end


def _loop(words: Sequence[str], at: int) -> tuple[int, int]:
    """Return the length of the phrase that starts at `at` and the end of its repetitions; one word without a loop."""
    for size in range(1, min(MAX_PHRASE_WORDS, (len(words) - at) // REPEATS) + 1):
        end = at + size
        while end < len(words) and words[end] == words[end - size]:
            end += 1
        repeats, rest = divmod(end - at, size)
        if repeats >= REPEATS:
            return size, end if end == len(words) else end - rest
    return 1, at + 1
