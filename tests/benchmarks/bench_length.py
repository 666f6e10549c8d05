"""Time per minute and memory of long videos: dense talk between three voices through the whole server."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from deployments.types import SAMPLE_RATE_HZ
from tests.benchmarks.bench_server import OTHERS, SETTLE_S, post_to_end, sample
from tests.benchmarks.footprint import Footprint, Stopwatch, Watch, footprint, session_of
from tests.benchmarks.report import row, say, table
from tests.benchmarks.talks import VOICES, dense_talk
from tests.support.backend import Backend
from tests.support.process import RunningServer, running_server
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTES = (1.0, 10.0, 60.0)
TIMEOUT_S = 1860
"""A little more than the server gives a job."""
NAMED_MB = 10
"""Parts that grew less are not named."""


def main(arguments: Sequence[str] = ()) -> None:
    """Print a row per length; `arguments` are minutes."""
    head = ["dense talk", "POST to callback, s", "s per minute", "`processing_time`, s per minute"]
    head += ["processor s per minute", "stages, s"]
    head += [f"speakers ({len(VOICES)} are right)", "peak PSS over idle, MB", OTHERS]
    with (
        running_server() as server,
        Backend() as backend,
        Sources() as sources,
        tempfile.TemporaryDirectory() as folder,
    ):
        post_to_end(server, backend, sources.file(sample()))  # what loads late is loaded
        time.sleep(SETTLE_S)
        idle = footprint(session_of(server))
        say(f"Idle, after the 30 s sample: {idle.pss_mb:.0f} MB PSS. Aims: s per minute within ±15 %, ≤ 1500 MB.\n")
        say(table(head, []))
        whole, processing, grown = [], [], []
        for minutes in map(float, arguments or MINUTES):
            path = Path(folder) / f"{minutes:g}-min.flac"
            soundfile.write(path, dense_talk(minutes * 60), SAMPLE_RATE_HZ)
            cells, rates, peak = measure(server, backend, sources.file(path), minutes, idle)
            say(row(*cells))
            whole.append(rates[0])
            processing.append(rates[1])
            grown.append(f"{minutes:g} min: {_growth(idle, peak)}")
        say(f"\nSpread of s per minute: {_spread(whole)}; of `processing_time` alone: {_spread(processing)}.")
        say("Grown at the peak, MB PSS:\n")
        say("\n".join(f"- {line}" for line in grown) + "\n")


def measure(
    server: RunningServer, backend: Backend, url: str, minutes: float, idle: Footprint
) -> tuple[list[str], tuple[float, float], Footprint]:
    """A row of the table, its two kinds of seconds per minute, and the look at which memory was highest."""
    watch = Stopwatch(session_of(server))
    with Watch(session_of(server)).looking() as memory:
        seconds, result = post_to_end(server, backend, url, within_s=TIMEOUT_S)
    spent = watch.read()
    stages = ", ".join(f"{stage} {spent_s:.1f}" for stage, spent_s in result["metadata"]["stages"].items())
    rates = (seconds / minutes, result["metadata"]["processing_time"] / minutes)
    cells = [
        f"{minutes:g} min",
        f"{seconds:.1f}",
        *(f"{rate:.2f}" for rate in rates),
        f"{spent.processor_s / minutes:.2f}",
        stages,
        str(result["metadata"]["unique_speakers"]),
        f"{memory.highest.pss_mb - idle.pss_mb:.0f}",
        spent.disturbance,
    ]
    return cells, rates, memory.highest


def _spread(rates: Sequence[float]) -> str:
    return f"±{100 * (2 * max(rates) / (max(rates) + min(rates)) - 1):.0f} %"


def _growth(idle: Footprint, peak: Footprint) -> str:
    grown = {kind: mb - idle.by_kind_mb.get(kind, 0) for kind, mb in peak.by_kind_mb.items()}
    named = [
        f"{kind} {grown[kind]:+.0f}"
        for kind in sorted(grown, key=lambda kind: -grown[kind])
        if abs(grown[kind]) >= NAMED_MB
    ]
    return f"{', '.join(named) or 'nothing'} (shared memory {peak.shared_mb - idle.shared_mb:+.0f} of it)"
