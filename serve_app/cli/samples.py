"""The samples of the demo: their sound and their reference transcripts."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from serve_app.cli.render import ReferenceLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Recorded speech with its reference. `note` says what to expect."""

    name: str
    title: str
    note: str
    audio: Path
    reference: tuple[ReferenceLine, ...]


class MissingSampleError(Exception):
    """A sample's file is missing; the text is a sentence for the user."""


def all_samples() -> tuple[Sample, ...]:
    """Return the samples in the demo's order. Raises `MissingSampleError`."""
    return (conversation(), clear_speech())


def conversation() -> Sample:
    """Return the 30 s telephone conversation of pyannote.audio with its reference, found without an import."""
    spec = importlib.util.find_spec("pyannote.audio")
    if spec is None or spec.origin is None:
        raise MissingSampleError("pyannote.audio is not installed: run `make setup` first.")
    folder = Path(spec.origin).parent / "sample"
    return Sample(
        name="conversation",
        title="A real telephone conversation",
        note="Two people on a telephone line, who laugh and fall into each other's words.",
        audio=existing(folder / "sample.wav"),
        reference=read_stm(existing(folder / "sample.stm")),
    )


def clear_speech() -> Sample:
    """Return the synthesized clip of the examples folder."""
    folder = examples_folder() / "media"
    return Sample(
        name="clear",
        title="Clear synthesized speech",
        note="Spoken clearly by synthesized voices: all of it should be right.",
        audio=existing(folder / "clear.flac"),
        reference=read_stm(existing(folder / "clear.stm")),
    )


def examples_folder() -> Path:
    """Return `examples/` of the checkout, or its copy in the installed package. Raises `MissingSampleError`."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "examples", package / "_examples"):
        if (folder / "backend" / "app.py").is_file():
            return folder
    raise MissingSampleError("The examples folder is missing: run the demo from a checkout.")


def existing(path: Path) -> Path:
    """Return `path` if it is a file. Raises `MissingSampleError`."""
    if not path.is_file():
        raise MissingSampleError(f"The sample file {path} is missing.")
    return path


def read_stm(path: Path) -> tuple[ReferenceLine, ...]:
    """Read NIST's segment time marks: `file channel speaker start end [<label>] text` a line; `;;` starts a comment."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith(";;"):
            continue
        _file, _channel, speaker, start_s, end_s, text = line.split(maxsplit=5)
        if text.startswith("<"):
            text = text.partition(">")[2].strip()
        lines.append(ReferenceLine(start_s=float(start_s), end_s=float(end_s), speaker=speaker, text=text))
    return tuple(lines)
