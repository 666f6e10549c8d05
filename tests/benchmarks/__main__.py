"""All measurements, as markdown for docs/benchmarks.md.

    python -m tests.benchmarks [PART …]

Without a part: their names, what each compares with, and what it needs. Numbers after `length` and `overhead` are the
videos' minutes, after `whisperx` the pairs, after `scale` the stored jobs. Each part takes less than 15 minutes on two
cores, but for `length 60` on a slow machine, `whisperx long`, where whisperX alone takes about an hour, and all of
`whisperx` or `trust` at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.benchmarks import (
    bench_durability,
    bench_length,
    bench_load,
    bench_overhead,
    bench_scale,
    bench_server,
    bench_whisperx,
)
from tests.benchmarks.report import heading, say, table
from tests.support import real_models
from tests.support.process import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
ADDITIONS: Final = 20_000_000


def _script(name: str) -> Callable[[Sequence[str]], None]:
    """A measurement of engines alone, in a process of its own: it pins cores and threads."""

    def run(arguments: Sequence[str]) -> None:
        environment = os.environ | clean_environment()
        subprocess.run([sys.executable, HERE / f"{name}.py", *arguments], cwd=ROOT, env=environment, check=True)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A measurement: what it is of, what stands beside it, and the arguments that divide it."""

    title: str
    beside: str
    run: Callable[[Sequence[str]], None]
    parts: tuple[str, ...] = ("",)
    real: bool = False
    """Whether it needs what `ML_SERVER_REAL_MODELS` names."""


BENCHES: dict[str, Bench] = {
    "server": Bench(title="The server: start, rest, one job", beside="the aims in its table", run=bench_server.main),
    "load": Bench(
        title="Answers under load",
        beside="an idle server's answers",
        run=bench_load.main,
        parts=("answers", "jobs"),
    ),
    "length": Bench(title="Length", beside="one minute", run=bench_length.main, parts=("1 10", "60")),
    "whisperx": Bench(
        title="Bare whisperX and faster-whisper in turn",
        beside="whisperX and faster-whisper, the same weights, in turn",
        run=bench_whisperx.main,
        parts=("text", "alone 1", "time 1", "ten", "long"),
        real=True,
    ),
    "overhead": Bench(
        title="The server's own share of a job",
        beside="engines that answer at once",
        run=bench_overhead.main,
        parts=("1 10", "60"),
    ),
    "durability": Bench(title="What durability costs", beside="the aims in its table", run=bench_durability.main),
    "scale": Bench(
        title="Stored and waiting jobs",
        beside="a hundredth of the jobs, SQLite with PostgreSQL",
        run=bench_scale.main,
    ),
    "diarization": Bench(
        title="Diarization and speech detection",
        beside="pyannote's own call on community-1, where that is there",
        run=_script("bench_diarization"),
    ),
    "quality": Bench(
        title="Words, times and speakers on held-out recordings",
        beside="the synthesizers' own words and times",
        run=_script("bench_quality"),
    ),
    "trust": Bench(
        title="How often the verdict of a result is right",
        beside="the error rate against known texts",
        run=_script("bench_trust"),
        real=True,
    ),
    "segments": Bench(
        title="Who said what, in whole sentences",
        beside="known speakers; the embedded diarizer with community-1",
        run=_script("bench_segments"),
        real=True,
    ),
    "words": Bench(
        title="Word times from Whisper's attention",
        beside="the synthesizers' own times",
        run=_script("bench_word_times"),
        real=True,
    ),
    "prosody": Bench(
        title="Pitch beside other trackers", beside="seven trackers in turn", run=_script("bench_prosody")
    ),
    "vocabulary": Bench(
        title="Vocabulary", beside="the same jobs without one", run=_script("bench_vocabulary"), real=True
    ),
    "languages": Bench(
        title="Languages that a job names",
        beside="the same jobs without them",
        run=_script("bench_languages"),
        real=True,
    ),
}


def main() -> None:
    chosen = chosen_benches(sys.argv[1:])
    if not chosen:
        say(listed())
        return
    say(f"{heading()}.\n")
    for name, arguments in chosen:
        bench, began_s = BENCHES[name], time.monotonic()
        say(f"## {bench.title}\n\nBeside: {bench.beside}. {ADDITIONS} additions in Python: {additions_s():.2f} s.\n")
        bench.run(arguments)
        say(f"\n<!-- {name}: {(time.monotonic() - began_s) / 60:.1f} min -->\n")


def additions_s() -> float:
    """What a plain loop takes at the top of a script, with global names: the machine's speed at this hour."""
    began_s = time.perf_counter()
    exec(f"total = 0\nfor number in range({ADDITIONS}):\n    total += number", {})  # noqa: S102 - our own text
    return time.perf_counter() - began_s


def listed() -> str:
    """All parts, one per row."""
    rows = [
        (f"{name} {part}".strip(), bench.beside, f"`{real_models.VARIABLE}`" if bench.real else "")
        for name, bench in BENCHES.items()
        for part in bench.parts
    ]
    return table(["part", "beside", "needs"], rows)


def chosen_benches(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Names, each with the words after it that are no names."""
    if words and words[0] not in BENCHES:
        raise SystemExit(f"{__doc__}\nunknown: {words[0]}")
    chosen: list[tuple[str, list[str]]] = []
    for word in words:
        if word in BENCHES:
            chosen.append((word, []))
        else:
            chosen[-1][1].append(word)
    return chosen


if __name__ == "__main__":
    main()
