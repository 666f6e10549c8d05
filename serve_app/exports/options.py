"""The options of an export: the query of its route, and the options of its command."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from deployments.errors import Locale  # noqa: TC001 - pydantic reads it

FormatName = Literal["srt", "vtt", "txt", "json", "tsv", "rttm"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
SHORTEST_LINE, LONGEST_LINE = 20, 200
MOST_LINES = 5


class ExportOptions(BaseModel):
    """Format and layout; the options of lines apply to subtitles only."""

    model_config = ConfigDict(frozen=True)

    format: FormatName = "srt"
    line_length: Annotated[
        int,
        Field(
            ge=SHORTEST_LINE, le=LONGEST_LINE, description="Columns of a subtitle's line; a wide character takes two"
        ),
    ] = 42
    lines_per_cue: Annotated[int, Field(ge=1, le=MOST_LINES, description="Lines of a subtitle")] = 2
    speakers: Annotated[bool, Field(description="Name the speakers (an RTTM always does)")] = True
    warnings: Annotated[
        Locale | None,
        Field(description="Tell the result's warnings, in this language, where the format has a place: vtt and txt"),
    ] = None
