"""All measurements, as markdown for docs/benchmarks.md.

    python -m tests.benchmarks [NAME …]

NAME is one of server, load, length, whisperx, overhead, durability, scale, diarization, quality, trust, segments,
words, prosody, vocabulary, languages; numbers after `length` and `overhead` are their minutes, so `length 1 10` leaves
the hour out. `whisperx`, `trust`, `segments`, `words`, `vocabulary` and `languages` need what `ML_SERVER_REAL_MODELS`
names. Without any name: all of them, more than an hour on two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks import (
    bench_durability,
    bench_length,
    bench_load,
    bench_overhead,
    bench_scale,
    bench_server,
    bench_whisperx,
)
from tests.benchmarks.report import heading, say
from tests.support.process import ROOT, clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent


def _script(name: str) -> Callable[[Sequence[str]], None]:
    """A measurement of engines alone, in a process of its own: it pins cores and threads."""

    def run(arguments: Sequence[str]) -> None:
        environment = os.environ | clean_environment()
        subprocess.run([sys.executable, HERE / f"{name}.py", *arguments], cwd=ROOT, env=environment, check=True)

    return run


BENCHES: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "server": ("The server: start, rest, one job", bench_server.main),
    "load": ("Answers under load", bench_load.main),
    "length": ("Length", bench_length.main),
    "whisperx": ("Bare whisperX and faster-whisper in turn", bench_whisperx.main),
    "overhead": ("The server's own share of a job", bench_overhead.main),
    "durability": ("What durability costs", bench_durability.main),
    "scale": ("Stored and waiting jobs", bench_scale.main),
    "diarization": ("Diarization and speech detection", _script("bench_diarization")),
    "quality": ("Words, times and speakers on held-out recordings", _script("bench_quality")),
    "trust": ("How often the verdict of a result is right", _script("bench_trust")),
    "segments": ("Who said what, in whole sentences", _script("bench_segments")),
    "words": ("Word times from Whisper's attention", _script("bench_word_times")),
    "prosody": ("Pitch beside other trackers", _script("bench_prosody")),
    "vocabulary": ("Vocabulary", _script("bench_vocabulary")),
    "languages": ("Languages that a job names", _script("bench_languages")),
}


def main() -> None:
    chosen = chosen_benches(sys.argv[1:])
    say(f"{heading()}.\n")
    for name, arguments in chosen:
        title, run = BENCHES[name]
        say(f"## {title}\n")
        run(arguments)
        say()


def chosen_benches(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Names, each with the words after it that are no names."""
    if not words:
        return [(name, []) for name in BENCHES]
    if words[0] not in BENCHES:
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
