"""Jobs through the server against bare whisperX on the same file with the same models, in turn, warm on both sides.

    python -m tests.benchmarks whisperx [one] [ten] [MINUTES]

The server is serve_config.yaml on the small models, on the CPU, with all that a job has by default; its wall time is
from the POST to the final callback. Bare whisperX is `bare_whisperx.py`: its own decode, transcribe, align, diarize and
assign, in a fresh process without the server's code. One pair is the server's turn and then whisperX's, so that a
machine that changes its speed changes both. `one`: one job against one run. `ten`: ten jobs at once against ten runs
one after the other; without a name both. Both sides' errors are printed beside, since fast and wrong is easy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from deployments.extraction.media import binary
from deployments.types import SAMPLE_RATE_HZ
from tests.benchmarks.footprint import Stopwatch, machine_busy_s, session_of
from tests.benchmarks.known_talk import VOICES, KnownTalk, errors, known_talk, of_server, of_whisperx
from tests.benchmarks.report import row, say, table
from tests.support.backend import Backend
from tests.support.process import ROOT, RunningServer, clean_environment, running_server
from tests.support.production import ARGUMENTS, production_environment
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.known_talk import Errors

MINUTES = 5.0
PAIRS = {1: 3, 10: 2}
"""How often each comparison is made."""
AIMS = {1: 0.8, 10: 0.77}
TIMEOUT_S = 3600
ORDER = """\
Both: the same file, decoded by the same ffmpeg; speech detection by the network that whisperx carries; language found;
int8, beams 5, batches of 8; the same aligner and diarization pipeline; words get speakers.
The server does more: download over HTTP, a database row, progress and callbacks, guard against invented text, a vote on
the language, exclusive turns, smoothing, F0 and level of each word, a mood per segment, the result as JSON.
It does less: the voice encoder hears a window once for all who speak in it, whisperX's pyannote once per speaker; the
detector's windows lie 2.5 s apart, whisperX's 0.5 s.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side took, and how well it did."""

    wall_s: float
    processor_s: float
    others: float
    """Share of the machine's processors that all else took meanwhile, 0-1: the resting server, too."""
    errors: Errors
    steps: dict[str, float]


class BareWhisperX:
    """The other side, as a process that takes one file at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.loaded = self._answer()

    def run(self, path: Path) -> dict[str, Any]:
        """What it says of a file: see `bare_whisperx`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def bare_whisperx(folder: Path, diarizer: str) -> Iterator[BareWhisperX]:
    """A fresh process with its models loaded; whisperX finds the server's ffmpeg under the name that it wants."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ffmpeg").symlink_to(binary())
    environment = os.environ | clean_environment() | {"PATH": f"{programs}:{os.environ['PATH']}"}
    log = folder / "whisperx.log"
    with log.open("w") as errors_of_it:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("bare_whisperx.py"), diarizer],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_of_it,
            text=True,
        )
    with process:
        try:
            yield BareWhisperX(process, log)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What both sides are given: a file, where the server downloads it, and what is said in it."""

    talk: KnownTalk
    path: Path
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Both sides."""

    server: RunningServer
    backend: Backend
    bare: BareWhisperX

    def server_turn(self, given: Given, jobs: int) -> Turn:
        """So many jobs at once."""
        watch = Stopwatch(session_of(self.server))
        began = time.monotonic()
        ids = [self.server.start(given.url, fastapi_base_url=self.backend.url) for _ in range(jobs)]
        ends = [self.backend.wait_end(job_id, within_s=TIMEOUT_S) for job_id in ids]
        spent = watch.read()
        for end in ends:
            assert end.body["status"] == "completed", end.body
        results = [end.body["result"] for end in ends]
        return Turn(
            wall_s=max(end.at for end in ends) - began,
            processor_s=spent.processor_s,
            others=spent.others,
            errors=worst([errors(given.talk, *of_server(result)) for result in results]),
            steps=mean([result["metadata"]["stages"] for result in results]),
        )

    def bare_turn(self, given: Given, runs: int) -> Turn:
        """So many runs one after the other."""
        busy_s, began = machine_busy_s(), time.monotonic()
        told = [self.bare.run(given.path) for _ in range(runs)]
        elapsed_s, busy_s = time.monotonic() - began, machine_busy_s() - busy_s
        own_s = sum(each["processor_s"] for each in told)
        return Turn(
            wall_s=sum(each["wall_s"] for each in told),
            processor_s=own_s,
            others=max(0.0, (busy_s - own_s) / elapsed_s / (os.cpu_count() or 1)),
            errors=worst([errors(given.talk, *of_whisperx(each["segments"])) for each in told]),
            steps=mean([each["steps_s"] for each in told]),
        )


def main(arguments: Sequence[str] = ()) -> None:
    """Print what was asked for."""
    counts = [count for name, count in {"one": 1, "ten": 10}.items() if name in arguments] or [1, 10]
    minutes = next((float(each) for each in arguments if each not in {"one", "ten"}), MINUTES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = production_environment(folder / "diarizer")
        with (
            running_server(*ARGUMENTS, environment=environment) as server,
            Backend() as backend,
            Sources() as sources,
            bare_whisperx(folder, environment["ML_SERVER_DIARIZER__MODEL"]) as bare,
        ):
            ring = Ring(server=server, backend=backend, bare=bare)
            given = given_talk(folder, sources, 60 * minutes)
            for count in counts:
                compare(ring, given, count)


def given_talk(folder: Path, sources: Sources, duration_s: float) -> Given:
    """A talk of that length."""
    talk = known_talk(duration_s)
    path = folder / "talk.flac"
    soundfile.write(path, talk.audio, SAMPLE_RATE_HZ)
    return Given(talk=talk, path=path, url=sources.file(path))


def compare(both: Ring, given: Given, count: int) -> None:
    """Print a table of pairs, their median, and what each side did."""
    both.server_turn(given, count)  # all replicas are up, and what loads late is loaded
    both.bare_turn(given, 1)
    times = "" if count == 1 else f"{count} x "
    say(
        f"{times}{given.talk.duration_s / 60:g} min of synthesized talk (flite, espeak-ng), {len(VOICES)} voices."
        f" whisperX's threads: {both.bare.loaded['threads']} (its defaults); the server's: one per replica (Ray's and"
        " its own defaults), at idle priority.\n"
    )
    head = [f"{count} at once", "server s", "whisperX s", f"ratio (aim ≤ {AIMS[count]})", "processor s of each"]
    head += ["others during each", "WER / DER / speakers of the server", "of whisperX"]
    say(table(head, []))
    turns = []
    for number in range(1, PAIRS[count] + 1):
        ours, theirs = both.server_turn(given, count), both.bare_turn(given, count)
        turns.append((ours, theirs))
        say(pair_row(f"pair {number}", ours, theirs))
    ratio = statistics.median(ours.wall_s / theirs.wall_s for ours, theirs in turns)
    walls = [f"{statistics.median(turn.wall_s for turn in side):.1f}" for side in zip(*turns, strict=True)]
    say(row("**median**", *walls, f"**{ratio:.2f}**", "", "", "", ""))
    say(f"\nLast pair, the clock's seconds. Server (stages run beside each other): {told(turns[-1][0].steps)}.")
    say(f"whisperX (one after the other): {told(turns[-1][1].steps)}.\n\n{ORDER}")


def pair_row(name: str, ours: Turn, theirs: Turn) -> str:
    """A row of the table."""
    return row(
        name,
        f"{ours.wall_s:.1f}",
        f"{theirs.wall_s:.1f}",
        f"{ours.wall_s / theirs.wall_s:.2f}",
        f"{ours.processor_s:.1f}, {theirs.processor_s:.1f}",
        f"{ours.others:.0%}, {theirs.others:.0%}",
        ours.errors,
        theirs.errors,
    )


def told(steps: dict[str, float]) -> str:
    """Steps and seconds."""
    return ", ".join(f"{step} {seconds:.1f}" for step, seconds in steps.items())


def mean(each: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean seconds of each step."""
    return {step: statistics.fmean(steps[step] for steps in each) for step in each[0]}


def worst(of: Sequence[Errors]) -> Errors:
    """The one with the most errors: they should all be the same."""
    return max(of, key=lambda each: (each.wer, each.der))
