"""Prints a result (the contract's `result` object) as tables: speakers, times, text, levels, pitches, emotions.

Knows the wire format; nothing of the server, jobs or files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from serve_app.verdicts import quality_line
from serve_app.warning_sentences import sentences_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from deployments.errors import Locale

SPEAKER_STYLES = ("cyan", "yellow", "green", "magenta", "blue", "red")
NOTHING = "-"

_NOT_A_WORD = re.compile(r"[^\w' ]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLine:
    """A line of a reference transcript. Times in seconds from the video's start."""

    start_s: float
    end_s: float
    speaker: str
    text: str


def plain(text: str) -> str:
    """Replace control characters and line breaks by spaces, so that text from others is safe to print."""
    return "".join(char if char.isprintable() else " " for char in text)


def render_result(
    result: Mapping[str, Any],
    console: Console,
    *,
    reference: Sequence[ReferenceLine] | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print the figures, warnings and transcript of a result, and the comparison with a reference if there is one.

    `names` are the speakers' by their ids.
    """
    console.print(metadata_table(result))
    print_warnings(result, console)
    if reference:
        console.print(comparison_table(result, reference))
        console.print(Text(agreement(result, reference)))
    if result.get("segments"):
        console.print(transcript_table(result, names))
    else:
        console.print(Text("No speech was found in this video.", style="italic"))


def print_warnings(result: Mapping[str, Any], console: Console) -> None:
    """Print a line per warning, in the terminal's language."""
    for warning in sentences_of(result.get("metadata", {}), locale_of(os.environ)):
        console.print(Text(f"Warning: {plain(warning)}", style="yellow"))


def locale_of(environment: Mapping[str, str]) -> Locale:
    """Return Korean if POSIX's variables for messages say so, else English."""
    name = next((value for each in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(each))), "")
    return "ko" if re.match(r"ko(?![a-z])", name) else "en"


def metadata_table(result: Mapping[str, Any]) -> Table:
    """Return a table of the result's figures; the engines that ran come first."""
    metadata = result.get("metadata", {})
    table = Table.grid(padding=(0, 2))
    rows = {
        "engines": metadata.get("model_version"),
        "file": metadata.get("filename"),
        "language": result.get("language"),
        "duration": _seconds(result.get("duration")),
        "processing time": _seconds(metadata.get("processing_time")),
        "speakers": metadata.get("unique_speakers"),
        "segments": metadata.get("total_segments"),
        "device": metadata.get("device"),
        "quality": quality_line(quality, locale_of(os.environ)) if (quality := metadata.get("quality")) else None,
        "stages": ", ".join(f"{name} {_seconds(value)}" for name, value in (metadata.get("stages") or {}).items()),
    }
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(Text(name, style="dim"), Text(plain(str(value))))
    return table


def transcript_table(result: Mapping[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> Table:
    """Return a row per segment: times, speaker, text, emotion, and the mean level and pitch of its words."""
    style = {names[speaker]: style_of(speaker) for speaker in sorted(names, reverse=True)}  # one for one name
    table = Table(title="Transcript", title_justify="left", expand=True)
    table.add_column("Time (s)", justify="right", no_wrap=True)
    table.add_column("Speaker", no_wrap=True)
    table.add_column("Text", ratio=1)
    table.add_column("Emotion")
    table.add_column("Volume", justify="right", no_wrap=True)
    table.add_column("Pitch", justify="right", no_wrap=True)
    for segment in result.get("segments") or ():
        speaker = names.get(speaker_of(segment), speaker_of(segment))
        words = segment.get("words") or ()
        volume_db, pitch_hz = mean_volume_db(words), mean_pitch_hz(words)
        table.add_row(
            f"{segment['start_time']:.2f} - {segment['end_time']:.2f}",
            Text(plain(speaker), style=style.get(speaker) or style_of(speaker)),
            Text(plain(str(segment.get("text", "")))),
            emotion_of(segment),
            NOTHING if volume_db is None else f"{volume_db:.0f} dB",
            NOTHING if pitch_hz is None else f"{pitch_hz:.0f} Hz",
        )
    return table


def comparison_table(result: Mapping[str, Any], reference: Sequence[ReferenceLine]) -> Table:
    """Return a row per reference line, with the words recognised in its time, grouped by speaker."""
    table = Table(title="What was said, and what was recognised", title_justify="left", expand=True)
    table.add_column("Time (s)", justify="right", no_wrap=True)
    table.add_column("Reference", ratio=1)
    table.add_column("Recognised", ratio=1)
    for line, words in zip(reference, words_by_line(result, reference), strict=True):
        spoken = Text.assemble((plain(line.speaker), "bold"), " ", plain(line.text))
        table.add_row(f"{line.start_s:.2f} - {line.end_s:.2f}", spoken, _speaker_runs(words))
    return table


def words_by_line(result: Mapping[str, Any], reference: Sequence[ReferenceLine]) -> list[list[tuple[str, str]]]:
    """Return for each reference line the (speaker, word) pairs whose middle is nearest to it."""
    lines: list[list[tuple[str, str]]] = [[] for _ in reference]
    borders_s = [(left.end_s + right.start_s) / 2 for left, right in pairwise(reference)]
    for segment in result.get("segments") or ():
        for word in segment.get("words") or ():
            middle_s = (word["start"] + word["end"]) / 2
            lines[sum(border_s <= middle_s for border_s in borders_s)].append((speaker_of(segment), word["word"]))
    return lines


def _speaker_runs(words: Sequence[tuple[str, str]]) -> Text:
    text = Text()
    last = None
    for speaker, word in words:
        if speaker != last:
            text.append(plain(f"{speaker} "), style=style_of(speaker))
            last = speaker
        text.append(plain(f"{word} "))
    return text


def agreement(result: Mapping[str, Any], reference: Sequence[ReferenceLine]) -> str:
    """Return a sentence with the word error rate and the numbers of speakers."""
    rate = word_error_rate(" ".join(line.text for line in reference), str(result.get("text", "")))
    said = len({line.speaker for line in reference})
    found = result.get("metadata", {}).get("unique_speakers", 0)
    return f"Word error rate {rate:.0%}; {found} speakers found, {said} really spoke."


def word_error_rate(reference: str, recognised: str) -> float:
    """Return substitutions, insertions and deletions per word of the reference (Levenshtein 1966, over words).

    Case and punctuation do not count. Without any reference word: 0 for an empty transcript, else 1.
    """
    said, heard = normalised_words(reference), normalised_words(recognised)
    if not said:
        return float(bool(heard))
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, start=1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(heard, start=1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other))
            diagonal, costs[column] = costs[column], best
    return costs[-1] / len(said)


def normalised_words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation."""
    return _NOT_A_WORD.sub(" ", text.lower()).split()


def speaker_of(segment: Mapping[str, Any]) -> str:
    """Return the segment's `speaker_id`."""
    return str(segment.get("speaker", {}).get("speaker_id", "?"))


def style_of(speaker: str) -> str:
    """Return the speaker's colour, by the number in the name."""
    digits = "".join(filter(str.isdigit, speaker))
    return SPEAKER_STYLES[int(digits or 0) % len(SPEAKER_STYLES)]


def emotion_of(segment: Mapping[str, Any]) -> str:
    """Return the emotion and its confidence, or a dash if there is none."""
    emotion = segment.get("emotion")
    if not emotion:
        return NOTHING
    return f"{plain(str(emotion.get('label')))} {emotion.get('confidence', 0):.0%}"


def mean_volume_db(words: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean of the words' levels in dBFS; None without words."""
    return _mean([float(word["volume_db"]) for word in words])


def mean_pitch_hz(words: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean pitch in Hz of the words without `"voiced": false`, which have their neighbours' pitch."""
    return _mean([float(word["pitch_hz"]) for word in words if word.get("voiced", True)])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _seconds(value: Any) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else ""
