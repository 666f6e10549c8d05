"""How fast the server comes up, what it takes at rest, and how long the 30 s sample takes through all of it."""

from __future__ import annotations

import importlib.util
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.footprint import Stopwatch, footprint, session_of
from tests.benchmarks.report import row, say, table
from tests.support.backend import Backend
from tests.support.process import RunningServer, running_server
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Sequence

STARTS = 2
RUNS = 3
SETTLE_S = 5.0
OTHERS = "others' share of the processors"
JOB_TIMEOUT_S = 300


def main(_arguments: Sequence[str] = ()) -> None:
    with running_server():
        pass  # compiles what is to be compiled
    head = ["`up` to healthy, s (aim ≤ 40)", "processor s", OTHERS]
    say(table(head, []))
    for _ in range(STARTS - 1):
        watch = Stopwatch()
        with running_server() as server:
            say(_start_row(watch, server))
    watch = Stopwatch()
    with running_server() as server, Backend() as backend, Sources() as sources:
        say(_start_row(watch, server) + "\n")
        time.sleep(SETTLE_S)
        say(at_rest(server) + "\n")
        say(sample_runs(server, backend, sources.file(sample())) + "\n")


def _start_row(watch: Stopwatch, server: RunningServer) -> str:
    spent = watch.read(session_of(server))
    return row(f"{spent.wall_s:.1f}", f"{spent.processor_s:.1f}", spent.disturbance)


def sample() -> Path:
    """The real 30 s telephone conversation that pyannote.audio ships."""
    spec = importlib.util.find_spec("pyannote.audio")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "sample" / "sample.wav"


def at_rest(server: RunningServer) -> str:
    """Processes and memory of a server that nobody has asked for anything yet."""
    rest = footprint(session_of(server))
    head = ["at rest", "processes", "PSS, MB", "RSS, MB"]
    rows: list[Sequence[object]] = [["all", rest.processes, f"{rest.pss_mb:.0f}", f"{rest.rss_mb:.0f}"]]
    rows += [[kind, "", f"{pss_mb:.0f}", ""] for kind, pss_mb in rest.by_kind_mb.items()]
    return table(head, rows)


def sample_runs(server: RunningServer, backend: Backend, url: str) -> str:
    """The sample again and again, the first time apart: engines load some things late."""
    rows: list[list[object]] = []
    warm_s = []
    for run in range(RUNS + 1):
        watch = Stopwatch(session_of(server))
        seconds, result = post_to_end(server, backend, url)
        spent = watch.read()
        warm_s += [seconds] if run else []
        stages = ", ".join(f"{stage} {spent_s:.1f}" for stage, spent_s in result["metadata"]["stages"].items())
        speakers = result["metadata"]["unique_speakers"]
        rows.append(
            [
                "warm" if run else "first",
                f"{seconds:.1f}",
                f"{spent.processor_s:.1f}",
                stages,
                speakers,
                spent.disturbance,
            ]
        )
    rows.append(["**median, warm** (aim ≤ 20)", f"**{statistics.median(warm_s):.1f}**", "", "", "", ""])
    head = [
        "30 s sample",
        "POST to final callback, s",
        "processor s",
        "stages, s",
        "speakers (2 are right)",
        OTHERS,
    ]
    return table(head, rows)


def post_to_end(
    server: RunningServer, backend: Backend, url: str, *, within_s: float = JOB_TIMEOUT_S, **fields: Any
) -> tuple[float, dict[str, Any]]:
    """Seconds from the POST to the final callback, and its result."""
    began = time.monotonic()
    job_id = server.start(url, fastapi_base_url=backend.url, **fields)
    end = backend.wait_end(job_id, within_s=within_s)
    assert end.body["status"] == "completed", end.body
    result: dict[str, Any] = end.body["result"]
    return end.at - began, result
