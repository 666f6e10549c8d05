"""Cuts a transcript into cues of subtitles, breaks their text into lines, and gives each its time on the screen.

A cue has one speaker. It ends at the end of a sentence, at a pause, or when its lines or its duration are full. Cues
are ordered by start and never overlap: cues of simultaneous speech follow each other.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from deployments.sentence_ends import ends_sentence
from deployments.types import Span, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deployments.types import Word
    from serve_app.exports.options import ExportOptions
    from serve_app.exports.segments import ExportSegment

LONGEST_S = 7.0
SHORT_S = 1.0
"""Shorter cues are extended to this if no other cue follows, and shorter sentences share a cue with a neighbour."""
SHORTEST_MS = 500
"""Least duration of a cue, even if it delays the next one."""
PAUSE_S = 0.8
_CLAUSE_END = re.compile(r"[,;:、]\W*$")
CUT_BONUS = 0.3
"""How far a cut may move, as a share of a cue, to be after a comma or in a pause of one second."""
LINE_USE = 0.85
"""About the share of a line that is used when lines are broken between words."""
TEXT_COLUMNS = 8
"""What a speaker's name leaves of a line, at least; a longer name is shortened."""
_MEDIAL_JAMO = range(0x1160, 0x1200)
"""Conjoining vowels and final consonants of Hangul: they are drawn inside the first consonant's square."""
_NO_COLUMN = {"Mn", "Me", "Cf"}

Tokens: TypeAlias = "list[Token]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Span):
    """An unbreakable piece of text: a word, or a part of a word that is longer than a line."""

    text: str
    spaced: bool
    """Whether a space precedes it within a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """Lines that are shown from `start_ms` to `end_ms` (which is later)."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]
    language: str = ""
    """A code, where the result tells each segment's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The space of a cue: columns, lines, and the text before its first word."""

    columns: int
    lines: int
    head: str

    def holds(self, tokens: Tokens) -> bool:
        return len(wrapped(tokens, self.columns, self.head)) <= self.lines and _duration_s(tokens) <= LONGEST_S

    def cues_for(self, tokens: Tokens) -> int:
        """Return about how many cues the tokens need."""
        capacity = LINE_USE * self.columns * self.lines - columns_of(self.head)
        return math.ceil(max(_columns(tokens) / max(1, capacity), _duration_s(tokens) / LONGEST_S))


def cues_of(segments: Iterable[ExportSegment], options: ExportOptions, *, labelled: bool) -> list[Cue]:
    """Return the cues in order of time. `labelled`: each begins with its speaker's name, which takes columns."""
    drafts = [(segment, *draft) for segment in segments for draft in _drafts(segment, options, labelled=labelled)]
    drafts.sort(key=lambda draft: draft[1][0].start_s)  # stable: cues with equal starts keep the result's order
    cues = []
    free_ms = 0
    for (segment, tokens, lines), following in zip(drafts, [*drafts[1:], None], strict=False):
        start_ms = max(free_ms, _ms(tokens[0].start_s))
        spoken_ms = min(_ms(_end_s(tokens)), start_ms + _ms(LONGEST_S))
        next_ms = math.inf if following is None else max(_ms(following[1][0].start_s), start_ms + SHORTEST_MS)
        free_ms = int(min(max(spoken_ms, start_ms + _ms(SHORT_S)), next_ms))
        speaker, language = segment.speaker, segment.language
        cues.append(Cue(start_ms=start_ms, end_ms=free_ms, speaker=speaker, lines=lines, language=language))
    return cues


def _drafts(
    segment: ExportSegment, options: ExportOptions, *, labelled: bool
) -> Iterator[tuple[Tokens, tuple[str, ...]]]:
    """Yield cues without times: tokens, lines."""
    columns, lines = options.line_length, options.lines_per_cue
    head = _label(segment.speaker, columns - TEXT_COLUMNS) if labelled else ""
    frame = _Frame(columns=columns, lines=lines, head=head)
    tokens = tokens_of(segment.words, columns if lines > 1 else max(1, columns - columns_of(head)))
    for sentence in _sentences(tokens, frame):
        for part in _parts(sentence, frame):
            yield part, tuple(balanced(part, columns, head))


@lru_cache(maxsize=256)
def _label(speaker: str, columns: int) -> str:
    """Return the speaker's name with a colon and a space, in at most `columns`."""
    label = f"{speaker}: "
    while columns_of(label) > columns:
        speaker = speaker[:-1]
        label = f"{speaker.rstrip()}…: "
    return label


def _sentences(tokens: Iterable[Token], frame: _Frame) -> list[Tokens]:
    """Cut at pauses and ends of sentences; join a short sentence to the one before if they fit in one cue."""
    sentences: list[Tokens] = []
    for token in tokens:
        if sentences and not ends_sentence(sentences[-1][-1], token) and not _pause(sentences[-1], token):
            sentences[-1].append(token)
        else:
            sentences.append([token])
    joined: list[Tokens] = []
    for sentence in sentences:
        if joined and not _pause(joined[-1], sentence[0]) and _short(joined[-1], sentence):
            both = joined[-1] + sentence
            if frame.holds(both):
                joined[-1] = both
                continue
        joined.append(sentence)
    return joined


def _parts(tokens: Tokens, frame: _Frame) -> list[Tokens]:
    """Cut tokens that do not fit into parts of about equal length, preferably after commas and in pauses."""
    if len(tokens) == 1 or frame.holds(tokens):
        return [tokens]
    total, count = _columns(tokens), max(2, frame.cues_for(tokens))
    aim = total * (count // 2) / count
    costs = []
    left = 0
    for before, after in pairwise(tokens):
        left += _columns([before])
        pause_s = max(0.0, after.start_s - before.end_s)
        bonus = CUT_BONUS * min(1.0, pause_s + _ends_clause(before))
        costs.append(abs(left - aim) * count / total - bonus)
    cut = costs.index(min(costs)) + 1
    return _parts(tokens[:cut], frame) + _parts(tokens[cut:], frame)


def _ends_clause(token: Token) -> bool:
    text = unicodedata.normalize("NFKC", token.text)  # full-width punctuation becomes half-width
    return _CLAUSE_END.search(text) is not None


def _pause(before: Tokens, after: Token) -> bool:
    return after.start_s - _end_s(before) >= PAUSE_S


def _short(before: Tokens, after: Tokens) -> bool:
    return min(_duration_s(before), _duration_s(after)) < SHORT_S


def _columns(tokens: Tokens) -> int:
    return sum(columns_of(token.text) + token.spaced for token in tokens)


def _duration_s(tokens: Tokens) -> float:
    return _end_s(tokens) - tokens[0].start_s


def _end_s(tokens: Tokens) -> float:
    return max(token.end_s for token in tokens)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# Lines: broken between words, and inside a word only if it is longer than a line.


def columns_of(text: str) -> int:
    """Return the width of `text`: two columns for an East Asian wide character, none for a combining one."""
    return sum(map(_columns_of, text))


@lru_cache(maxsize=4096)
def _columns_of(char: str) -> int:
    if unicodedata.category(char) in _NO_COLUMN or ord(char) in _MEDIAL_JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def tokens_of(words: Sequence[Word], columns: int) -> list[Token]:
    """Return the words as tokens of at most `columns`; parts of a word share its time by their length."""
    tokens = []
    before = ""
    for word in words:
        spaced = bool(before) and " " in joined((before[-1], word.text[0]))
        start_s = word.start_s
        for text in word.text.split(" "):
            for piece in _pieces(text, columns):
                end_s = start_s + word.duration_s * len(piece) / len(word.text)
                tokens.append(Token(start_s=start_s, end_s=end_s, text=piece, spaced=spaced))
                start_s, spaced = end_s, False
            spaced = True
        before = word.text
    return tokens


def _pieces(text: str, columns: int) -> Iterator[str]:
    borders, width = [0], 0
    for i, char in enumerate(text):
        width += _columns_of(char)
        if width > columns:
            borders.append(i)
            width = _columns_of(char)
    for start, end in pairwise([*borders, len(text)]):
        yield text[start:end]


def wrapped(tokens: Sequence[Token], columns: int, head: str = "") -> list[str]:
    """Return the fewest lines that hold the tokens. `head`, which ends with a space, begins the first line."""
    lines, width = [head], columns_of(head)
    for token in tokens:
        space = " " if token.spaced and lines[-1] not in ("", head) else ""
        longer = width + len(space) + columns_of(token.text)
        if lines[-1] and longer > columns:
            lines.append(token.text)
            width = columns_of(token.text)
        else:
            lines[-1] += space + token.text
            width = longer
    return [line.rstrip() for line in lines]


def balanced(tokens: Sequence[Token], columns: int, head: str = "") -> list[str]:
    """Return as few lines as `wrapped`, of lengths as equal as possible."""
    lines = wrapped(tokens, columns, head)
    longest = max(map(columns_of, lines))
    while len(lines) > 1:
        narrower = wrapped(tokens, longest - 1, head)
        if len(narrower) > len(lines) or max(map(columns_of, narrower)) >= longest:
            break
        lines, longest = narrower, max(map(columns_of, narrower))
    return lines
