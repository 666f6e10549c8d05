"""The server against bare whisperX and bare faster-whisper on the same real weights, in turn: words and time.

    ML_SERVER_REAL_MODELS=FOLDER python -m tests.benchmarks whisperx [text] [alone] [time] [long] [ten] [PAIRS]

`text`: each recording of `known_texts` by the server's own stages without Ray (detection, chunks, the vote on the
language, Whisper with its guard, as a job has them), then by each bare side, each in a process and on one thread.
`alone`: whisperX, faster-whisper's batched pipeline and, where it is installed (`pip install pywhispercpp`),
whisper.cpp on two minutes and on half an hour, in turn, for the time.
`time`: whole jobs of a real server (configs/local.yaml with community-1, all that a job has, from the POST to
the final callback) and whole runs of bare whisperX in turn, each on its own default threads. One pair is the server's
turn and then whisperX's, so that a machine that changes its speed changes both. `long`: one pair of half an hour, of
which whisperX takes about one. `ten`: ten jobs of a minute at once beside ten runs of whisperX one after the other, of
which two are measured. Without a name `text` and `time`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import soundfile

from deployments.extraction.samples import binary
from deployments.types import SAMPLE_RATE_HZ
from tests.benchmarks.footprint import Stopwatch, session_of
from tests.benchmarks.known_texts import Count, Recording, count, recordings, repeated
from tests.benchmarks.report import row, say, table
from tests.support import real_models
from tests.support.backend import Backend
from tests.support.process import ROOT, RunningServer, clean_environment, running_server
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS: Final = "server-text"
BARE: Final = ("whisperx-text", "faster-whisper")
OTHERS: Final = (
    "whisperx-text",
    "faster-whisper-batched",
    *(["whisper-cpp"] if find_spec("pywhispercpp") else []),
)
"""The other sides of `alone`."""
ALONE_REPEATS: Final = (2, 31)
"""The files of `alone`: two minutes, and half an hour."""
PARTS: Final = {"text", "alone", "time", "long", "ten"}
TEN: Final = 10
TEN_MEASURED: Final = 2
PAIRS: Final = 2
TIMED_REPEATS: Final = 2
"""The longest file of `time`: the call and the reading so often, two minutes."""
LONG_REPEATS: Final = 31
"""The file of `long`: half an hour."""
TIMEOUT_S: Final = 3600
WORDS_MORE: Final = 2
"""A recording with more errors than these beyond a bare side's is named."""
ORDER: Final = """\
Both: the same file, decoded by the same ffmpeg; speech detection by the network that whisperx carries; language found;
Whisper base, int8, beams of 5; community-1; speakers given.
The server does more: download over HTTP, a database row, progress and callbacks, guard against invented text, a vote on
the language, a time for each word, F0 and level of each word, a mood per segment, the result as JSON.
It does less: the voice encoder hears a window once for all who speak in it, whisperX's pyannote once per speaker; the
detector's windows lie 2.5 s apart, whisperX's 0.5 s.
"""


class Side:
    """Another side, as a process that takes one file at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.loaded = self._answer()

    def run(self, path: Path) -> dict[str, Any]:
        """What it says of a file: see `sides`."""
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
def side_process(side: str, models: Path, folder: Path) -> Iterator[Side]:
    """A fresh process with its models loaded; whisperX finds the server's ffmpeg under the name that it wants."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    ffmpeg = programs / "ffmpeg"
    if not ffmpeg.exists():
        ffmpeg.symlink_to(binary())
    environment = os.environ | clean_environment() | {"PATH": f"{programs}:{os.environ['PATH']}"}
    log = folder / f"{side}.log"
    with log.open("w") as errors_of_it:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("sides.py"), side, models],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_of_it,
            text=True,
        )
    with process:
        try:
            yield Side(process, log)
        finally:
            process.kill()


def main(arguments: Sequence[str] = ()) -> None:
    models = real_models.folder()
    if models is None:
        say(f"Not measured: {real_models.MISSING}.")
        return
    pairs = next((int(each) for each in arguments if each.isdigit()), PAIRS)
    with tempfile.TemporaryDirectory() as name:
        chosen = {each for each in arguments if not each.isdigit()} or {"text", "time"}
        if chosen - PARTS:
            raise SystemExit(f"unknown: {', '.join(sorted(chosen - PARTS))}; known: {', '.join(sorted(PARTS))}")
        if chosen & {"text", "alone"}:
            os.environ["OMP_NUM_THREADS"] = "1"
            if "text" in chosen:
                compare_texts(models, Path(name))
            if "alone" in chosen:
                compare_transcriptions(models, Path(name), pairs)
            del os.environ["OMP_NUM_THREADS"]
        if chosen & {"time", "long", "ten"}:
            compare_times(models, Path(name), pairs, chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one side made of a recording."""

    count: Count
    processor_s: float


def compare_texts(models: Path, folder: Path) -> None:
    """Print the errors per kind of recording, and the recordings where the server is worse."""
    heard: dict[str, list[tuple[Recording, Heard]]] = defaultdict(list)
    with ExitStack() as stack:
        sides = {side: stack.enter_context(side_process(side, models, folder)) for side in (OURS, *BARE)}
        for recording in recordings():
            path = written(recording, folder)
            for name, side in sides.items():
                told = side.run(path)
                result = Heard(count=count(recording, told["text"]), processor_s=told["processor_s"])
                heard[name].append((recording, result))
            errors = ", ".join(f"{name} {results[-1][1].count.errors}" for name, results in heard.items())
            say(f"<!-- {recording.name}: {errors} -->")
    say(texts_table(heard))
    say(f"\n{worse(heard)}\n")


def written(recording: Recording, folder: Path, late: int = 0) -> Path:
    """The file, which begins so many hundredths of a second late: files of one recording differ."""
    path = folder / f"recording-{late}.flac"
    soundfile.write(path, np.pad(recording.audio, (late * SAMPLE_RATE_HZ // 100, 0)), SAMPLE_RATE_HZ)
    return path


def texts_table(heard: dict[str, list[tuple[Recording, Heard]]]) -> str:
    """A row per kind of recording, and one for all English ones together."""
    head = ["recordings", "number", "s", "words", *(f"{side}, WER %" for side in heard)]
    head += [f"processor time, server / {side}" for side in BARE]
    kinds = list(dict.fromkeys(recording.kind for recording, _ in heard[OURS]))
    rows = [
        _texts_row(kind, {s: [e for e in all_of if e[0].kind == kind] for s, all_of in heard.items()}) for kind in kinds
    ]
    english = {side: [each for each in all_of if each[0].language == "en"] for side, all_of in heard.items()}
    return table(head, [*rows, _texts_row("**all English**", english)])


def _texts_row(kind: str, heard: dict[str, list[tuple[Recording, Heard]]]) -> list[str]:
    totals = {side: sum((each.count for _, each in found), Count(errors=0, of=0)) for side, found in heard.items()}
    seconds = {side: sum(each.processor_s for _, each in found) for side, found in heard.items()}
    mine = heard[OURS]
    return [
        kind,
        str(len(mine)),
        f"{sum(recording.duration_s for recording, _ in mine):.0f}",
        str(totals[OURS].of),
        *(f"{100 * total.rate:.1f}" for total in totals.values()),
        *(f"{seconds[OURS] / seconds[side]:.2f}" for side in BARE),
    ]


def worse(heard: dict[str, list[tuple[Recording, Heard]]]) -> str:
    """The recordings with more than two errors beyond a bare side's."""
    named = []
    for at, (recording, mine) in enumerate(heard[OURS]):
        theirs = {side: heard[side][at][1].count.errors for side in BARE}
        if mine.count.errors > min(theirs.values()) + WORDS_MORE:
            others = ", ".join(f"{side} {errors}" for side, errors in theirs.items())
            named.append(f"{recording.name} ({mine.count.of} words): {mine.count.errors}, {others}")
    return "More than two words worse than a bare side: " + ("; ".join(named) or "none") + "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side took for a file, and how well it did."""

    wall_s: float
    processor_s: float
    count: Count
    speakers: int
    steps_s: dict[str, float]


def compare_transcriptions(models: Path, folder: Path, pairs: int) -> None:
    """Print what text alone takes each side, pair by pair."""
    head = ["text alone, one thread", *(f"{side}: wall, processor s" for side in (OURS, *OTHERS))]
    head += [f"server / {side}: wall, processor" for side in OTHERS] + ["WER % of each"]
    say(table(head, []))
    known = _real()
    with ExitStack() as stack:
        sides = {side: stack.enter_context(side_process(side, models, folder)) for side in (OURS, *OTHERS)}
        for side in sides.values():
            side.run(written(known[0], folder))  # what loads late is loaded
        for recording in (repeated(known, times) for times in ALONE_REPEATS):
            path = written(recording, folder)
            for _ in range(pairs):
                told = {name: side.run(path) for name, side in sides.items()}
                times = {name: (each["wall_s"], each["processor_s"]) for name, each in told.items()}
                ratios = [[a / b for a, b in zip(times[OURS], times[side], strict=True)] for side in OTHERS]
                rates = [100 * count(recording, each["text"]).rate for each in told.values()]
                say(
                    row(
                        f"{recording.duration_s:.0f} s",
                        *(f"{wall:.1f}, {processor:.1f}" for wall, processor in times.values()),
                        *(f"{wall:.2f}, {processor:.2f}" for wall, processor in ratios),
                        ", ".join(f"{each:.1f}" for each in rates),
                    )
                )
    say()


def _real() -> list[Recording]:
    return [each for each in recordings() if each.kind in {"real, telephone", "real, read"}]


def compare_times(models: Path, folder: Path, pairs: int, chosen: set[str]) -> None:
    """Print a row per file and pair, and what each side did; and ten jobs at once."""
    environment = {
        "ML_SERVER_TRANSCRIBER__MODEL": str(models / "whisper-base"),
        "ML_SERVER_DIARIZER__ENGINE": "pyannote",
        "ML_SERVER_DIARIZER__MODEL": str(models / "community-1"),
        "ML_SERVER_MODELS__ALLOW_UNPINNED": "true",
    }
    known = _real()
    with (
        running_server(environment=environment) as server,
        Backend() as backend,
        Sources() as sources,
        side_process("whisperx", models, folder) as bare,
    ):
        ours = _Server(server, backend, sources)
        warm = written(known[0], folder)
        ours.turn(known[0], warm)  # all replicas are up, and what loads late is loaded
        _bare_turn(bare, known[0], warm)
        if "time" in chosen:
            _measure([*known, repeated(known, TIMED_REPEATS)], pairs, folder, ours, bare)
        if "long" in chosen:
            _measure([repeated(known, LONG_REPEATS)], 1, folder, ours, bare)
        if "ten" in chosen:
            _measure_ten(repeated(known, 1), folder, ours, bare)
    say(f"\nwhisperX's threads: {bare.loaded['threads']}; the server's: one per replica, at idle priority.\n\n{ORDER}")


@dataclass(frozen=True, slots=True)
class _Server:
    server: RunningServer
    backend: Backend
    sources: Sources

    def turn(self, recording: Recording, *paths: Path) -> Turn:
        """A job per path, all at once: when the last one has ended, and what it says."""
        watch = Stopwatch(session_of(self.server))
        began = time.monotonic()
        job_ids = [self.server.start(self.sources.file(path), fastapi_base_url=self.backend.url) for path in paths]
        ends = [self.backend.wait_end(job_id, within_s=TIMEOUT_S) for job_id in job_ids]
        spent = watch.read()
        assert all(end.body["status"] == "completed" for end in ends), [end.body for end in ends]
        last = max(ends, key=lambda end: end.at)
        result = last.body["result"]
        return Turn(
            wall_s=last.at - began,
            processor_s=spent.processor_s,
            count=count(recording, result["text"]),
            speakers=result["metadata"]["unique_speakers"],
            steps_s=result["metadata"]["stages"],
        )


def _bare_turn(bare: Side, recording: Recording, path: Path) -> Turn:
    told = bare.run(path)
    return Turn(
        wall_s=told["wall_s"],
        processor_s=told["processor_s"],
        count=count(recording, told["text"]),
        speakers=told["speakers"],
        steps_s=told["steps_s"],
    )


def _measure(files: Sequence[Recording], pairs: int, folder: Path, server: _Server, bare: Side) -> None:
    head = ["file", "server s", "whisperX s", "ratio", "processor s of each", "ratio", "WER %", "speakers"]
    say(table(head, []))
    ratios, last = [], []
    for recording in files:
        path = written(recording, folder)
        for _ in range(pairs):
            ours, theirs = last = [server.turn(recording, path), _bare_turn(bare, recording, path)]
            ratios.append((ours.wall_s / theirs.wall_s, ours.processor_s / theirs.processor_s))
            say(_pair_row(recording.name, ours, theirs))
    walls, processors = (statistics.median(each) for each in zip(*ratios, strict=True))
    say(row("**median**", "", "", f"**{walls:.2f}**", "", f"**{processors:.2f}**", "", ""))
    say(f"\nLast pair, the clock's seconds. Server (stages run beside each other): {_told(last[0].steps_s)}.")
    say(f"whisperX (one after the other): {_told(last[1].steps_s)}.")


def _measure_ten(recording: Recording, folder: Path, server: _Server, bare: Side) -> None:
    paths = [written(recording, folder, late) for late in range(TEN)]
    ours = server.turn(recording, *paths)
    theirs = [_bare_turn(bare, recording, path) for path in paths[:TEN_MEASURED]]
    wall_s, processor_s = (
        sum(each) * TEN / TEN_MEASURED for each in zip(*((t.wall_s, t.processor_s) for t in theirs), strict=True)
    )
    say(
        f"\nTen jobs of {recording.duration_s:.0f} s at once: {ours.wall_s:.1f} s, {ours.processor_s:.1f} processor s; "
        f"whisperX, one after the other, from {TEN_MEASURED} of them: {wall_s:.1f} s, {processor_s:.1f} processor s; "
        f"ratios {ours.wall_s / wall_s:.2f}, {ours.processor_s / processor_s:.2f}."
    )


def _pair_row(name: str, ours: Turn, theirs: Turn) -> str:
    return row(
        name,
        f"{ours.wall_s:.1f}",
        f"{theirs.wall_s:.1f}",
        f"{ours.wall_s / theirs.wall_s:.2f}",
        f"{ours.processor_s:.1f}, {theirs.processor_s:.1f}",
        f"{ours.processor_s / theirs.processor_s:.2f}",
        f"{100 * ours.count.rate:.1f}, {100 * theirs.count.rate:.1f}",
        f"{ours.speakers}, {theirs.speakers}",
    )


def _told(steps_s: dict[str, float]) -> str:
    return ", ".join(f"{step} {seconds:.1f}" for step, seconds in steps_s.items())
