"""The options of `ml-server submit` and `rerun` that say how a job is processed, and the kinds of their values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from serve_app.jobs.job import MOST_SPEAKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SPEAKER_COUNT = click.IntRange(1, MOST_SPEAKERS)


class AudioTrack(click.ParamType[Any]):
    """A track's number, or a language code."""

    name = "track"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """Return the number as an int; the server judges the rest."""
        return int(value) if value.isdecimal() else value


class JsonObject(click.ParamType[Any]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the object."""
        try:
            content = json.loads(value)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self.fail("is no JSON object", param, ctx)
        return content


class SpeakerName(click.ParamType[Any]):
    """A speaker's id and name."""

    name = "speaker"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return both; the server judges them."""
        speaker, equals, name = value.partition("=")
        if not equals:
            self.fail("is no name of a speaker: write SPEAKER_00=NAME", param, ctx)
        return speaker, name


class HeaderLine(click.ParamType[Any]):
    """A header as HTTP writes it."""

    name = "header"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return name and value."""
        name, colon, content = value.partition(":")
        if not colon:
            self.fail("is no header: write 'Name: value'", param, ctx)
        return name.strip(), content.strip()


def changes(options: Mapping[str, Any], reset: Sequence[str]) -> dict[str, Any]:
    """Return a rerun's fields: those of `options` that are given, and null for those that go back to their defaults.

    Raises click.UsageError where a field is to have a new value and its default.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if both := given.keys() & set(reset):
        raise click.UsageError(f"--reset {min(both)} contradicts its new value")
    if "callback_headers" in given:
        given["callback_headers"] = dict(given["callback_headers"])
    return given | dict.fromkeys(reset)


def job_options(*, keep: bool) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Return the options that say how a job is processed. `keep`: one that is not given has no value."""

    def default(value: object) -> dict[str, Any]:
        return {} if keep else {"default": value, "show_default": True}

    options = (
        click.option("--language", **default("auto"), help="`auto` or a code such as `en`."),
        click.option(
            "--emotion/--no-emotion",
            "emotion_detection",
            **({"default": None} if keep else default(True)),
            help="Find the emotion of each segment.",
        ),
        click.option(
            "--gpu/--no-gpu",
            "enable_gpu",
            **({"default": None} if keep else default(True)),
            help="--no-gpu: use the CPU pool, if there is one.",
        ),
        click.option("--max-workers", **default(4), type=click.IntRange(1, 16), help="Pieces in flight."),
        click.option("--num-speakers", type=SPEAKER_COUNT, help="How many people speak, where that is known."),
        click.option("--min-speakers", type=SPEAKER_COUNT, help="At least so many people speak."),
        click.option("--max-speakers", type=SPEAKER_COUNT, help="At most so many people speak."),
        click.option("--vocabulary", multiple=True, metavar="TERM", help="A name or term that is said; repeatable."),
        click.option("--languages", multiple=True, metavar="CODE", help="Look for this language only; repeatable."),
        click.option(
            "--audio-track", type=AudioTrack(), help="Which audio track: its number, from 1, or its language."
        ),
        click.option("--channels", type=click.Choice(["mix", "separate"]), help="separate: one speaker per channel."),
        click.option("--start", "start_s", type=click.FloatRange(0), help="Only from this second of the video on."),
        click.option("--end", "end_s", type=click.FloatRange(0), help="Only until this second of the video."),
        click.option("--metadata", "custom_metadata", type=JsonObject(), help="JSON that callbacks and status repeat."),
        click.option(
            "--callback-header",
            "callback_headers",
            type=HeaderLine(),
            multiple=True,
            metavar="'NAME: VALUE'",
            help="A header of every callback; repeatable.",
        ),
    )

    def decorate(command: click.decorators.FC) -> click.decorators.FC:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
