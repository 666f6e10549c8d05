"""Writes a result in one of the formats, as UTF-8 with line feeds."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

from deployments.types import Span
from serve_app.exports.cues import cues_of
from serve_app.exports.segments import plain, segments_of
from serve_app.warning_sentences import sentences_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from serve_app.exports.options import ExportOptions, FormatName
    from serve_app.exports.segments import ExportSegment

MEDIA_TYPES: Mapping[FormatName, str] = {
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "txt": "text/plain",
    "json": "application/json",
    "tsv": "text/tab-separated-values",
    "rttm": "text/plain",
}
_ARROW = re.compile(r"--+>")
_NOT_IN_RTTM = re.compile(r'[\s<>"]')
FORMULA_BEGINS = ("=", "+", "-", "@")


def export(result: bytes, options: ExportOptions, *, job_id: str, names: Mapping[str, str] | None = None) -> bytes:
    """Return `result`, the contract's object as JSON, in another format; as `json` unchanged.

    `names` are the speakers' by their ids: two ids with one name are one speaker.
    """
    if options.format == "json":
        return result
    content = json.loads(result)
    warnings = sentences_of(content.get("metadata", {}), options.warnings) if options.warnings else []
    head: Iterable[str] = _HEADS[options.format]([plain(text) for text in warnings]) if options.format in _HEADS else ()
    return "".join([*head, *_WRITERS[options.format](segments_of(content, names or {}), options, job_id)]).encode()


def _srt(segments: Sequence[ExportSegment], options: ExportOptions, _job_id: str) -> Iterator[str]:
    for number, cue in enumerate(cues_of(segments, options, labelled=options.speakers), start=1):
        text = _ARROW.sub("->", "\n".join(cue.lines))  # SRT cannot escape an arrow
        yield f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{text}\n\n"


def _vtt(segments: Sequence[ExportSegment], options: ExportOptions, _job_id: str) -> Iterator[str]:
    for cue in cues_of(segments, options, labelled=False):
        voice = f"<v {html.escape(cue.speaker, quote=False)}>" if options.speakers else ""
        text = html.escape("\n".join(cue.lines), quote=False)
        if cue.language:
            text = f"<lang {html.escape(cue.language, quote=False)}>{text}</lang>"
        yield f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{voice}{text}\n"


def _vtt_head(warnings: Sequence[str]) -> Iterator[str]:
    """Yield the header, with the warnings as comments, which players ignore."""
    yield "WEBVTT\n"
    for warning in warnings:
        yield f"\nNOTE {_ARROW.sub('->', warning)}\n"


def _txt_head(warnings: Sequence[str]) -> Iterator[str]:
    """Yield the warnings in brackets, and an empty line before the text."""
    yield from (f"[{warning}]\n" for warning in warnings)
    if warnings:
        yield "\n"


def _txt(segments: Sequence[ExportSegment], options: ExportOptions, _job_id: str) -> Iterator[str]:
    for segment in segments:
        yield f"{segment.speaker}: {segment.text}\n" if options.speakers else f"{segment.text}\n"


def _tsv(segments: Sequence[ExportSegment], options: ExportOptions, _job_id: str) -> Iterator[str]:
    """Write Whisper's columns, times in milliseconds, then the speaker, and the language where the result tells it.

    A spreadsheet would take a text like `=1+1` for a formula: such texts begin with an apostrophe (OWASP, "CSV
    injection"), and so do such names.
    """
    tells_languages = any(segment.language for segment in segments)
    names = ["start", "end", "text", *["speaker"] * options.speakers, *["language"] * tells_languages]
    yield "\t".join(names) + "\n"
    for segment in segments:
        speaker = f"\t{_as_cell(segment.speaker)}" if options.speakers else ""
        language = f"\t{segment.language}" if tells_languages else ""
        times = f"{segment.start_s * 1000:.0f}\t{segment.end_s * 1000:.0f}"
        yield f"{times}\t{_as_cell(segment.text)}{speaker}{language}\n"


def _as_cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_BEGINS) else text


def _rttm(segments: Sequence[ExportSegment], _options: ExportOptions, job_id: str) -> Iterator[str]:
    """Write NIST's Rich Transcription Time Marked: a line for each turn.

    Spaces separate its fields, and `<NA>` means that there is none: names have neither.
    """
    for speaker, turn in _turns(segments):
        name = _NOT_IN_RTTM.sub("_", speaker)
        yield f"SPEAKER {job_id} 1 {turn.start_s:.3f} {turn.duration_s:.3f} <NA> <NA> {name} <NA> <NA>\n"


def _turns(segments: Sequence[ExportSegment]) -> list[tuple[str, Span]]:
    """Return the turns in order of time; segments of one speaker that touch or overlap are one turn."""
    turns: list[tuple[str, Span]] = []
    last: dict[str, int] = {}
    for segment in sorted(segments, key=lambda segment: segment.start_s):
        at = last.get(segment.speaker)
        if at is not None and segment.start_s <= turns[at][1].end_s:
            start_s, end_s = turns[at][1].start_s, max(turns[at][1].end_s, segment.end_s)
            turns[at] = segment.speaker, Span(start_s=start_s, end_s=end_s)
        else:
            last[segment.speaker] = len(turns)
            turns.append((segment.speaker, Span(start_s=segment.start_s, end_s=segment.end_s)))
    return [(speaker, turn) for speaker, turn in turns if turn.duration_s > 0]


def _clock(time_ms: int, decimal_mark: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


_HEADS: Mapping[FormatName, Callable[[Sequence[str]], Iterator[str]]] = {"vtt": _vtt_head, "txt": _txt_head}
_WRITERS: Mapping[FormatName, Callable[[Sequence[ExportSegment], ExportOptions, str], Iterator[str]]] = {
    "srt": _srt,
    "vtt": _vtt,
    "txt": _txt,
    "tsv": _tsv,
    "rttm": _rttm,
}
