"""The server's own share of a job: all of its wall time that is neither download, ffmpeg, model nor prosody compute.

    python -m tests.benchmarks overhead [MINUTES …]

serve_config.yaml on the small models, one job at a time, through `watched_graph`: every call of an engine writes down
when it began and ended, inside the replica and in the thread that computes; the extractor's log line tells the
download's and ffmpeg's seconds (to a hundredth). The time from the POST to the final callback that no such interval
covers is the server's own: requests, the job's row, the driver's start, audio kept and handed on, waiting for turns,
calls, assembly, the result's row and its callback. It is told by where it lies:

- start: from the POST to the download;
- audio: from ffmpeg's end to the first engine (audio hashed, kept, and loaded into the object store);
- between: while engines had been asked and none computed;
- end: from the last engine's answer to the final callback.

Where engines take long the server works beside them, and less is left uncovered. So the job is measured once more with
engines that answer at once (`build_instant`: the shipped fakes), where nothing can hide: an upper bound,
whose share is told of the wall time that the job takes with the engines.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import yaml

from deployments.logs import JOB_FIELD
from deployments.types import SAMPLE_RATE_HZ
from tests.benchmarks.bench_server import OTHERS
from tests.benchmarks.footprint import Stopwatch, session_of
from tests.benchmarks.report import row, say, table
from tests.benchmarks.talks import known_talk
from tests.support.backend import Backend
from tests.support.process import ROOT, RunningServer, running_server
from tests.support.production import CONFIG, NODE, production_environment
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MINUTES = (1.0, 10.0, 60.0)
WARM_UP_MINUTES = 1.0
TIMEOUT_S = 3600
GRAPH = "tests.benchmarks.watched_graph"
COMPUTED = "computed"

Interval = tuple[float, float]
"""Beginning and end, seconds of the epoch."""
Computation = tuple[float, float, str]
"""The same, and the deployment that computed."""
NAMED_S = 0.02
"""Shorter gaps, summed up by what lies on both sides, are not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a job's wall time went into, in seconds; the last four are the server's own."""

    wall_s: float
    fetched_s: float
    """Download and ffmpeg."""
    computed_s: float
    """At least one engine computed."""
    start_s: float
    audio_s: float
    between_s: float
    end_s: float
    gaps_s: dict[str, float]
    """`between_s` by the deployments that computed before and after, the longest first."""
    others: float
    """Share of the machine's processors that everything else took, 0-1."""

    @property
    def own_s(self) -> float:
        return self.start_s + self.audio_s + self.between_s + self.end_s


def main(arguments: Sequence[str] = ()) -> None:
    """Print a row per length and kind of engines; `arguments` are minutes."""
    minutes = [float(each) for each in arguments] or list(MINUTES)
    head = [
        "job",
        "wall, s",
        "download and ffmpeg",
        "engines",
        "**the server's own, s** (aim < 2)",
        "share (aim < 5 %)",
    ]
    head += ["start + audio + between + end", "between, by what computed before and after", OTHERS]
    say(table(head, []))
    walls = measure("build", minutes, {})
    measure("build_instant", minutes, walls)


def measure(build: str, minutes: Sequence[float], walls: dict[float, float]) -> dict[float, float]:
    """Print the rows; `walls` are jobs' wall seconds to compare with, by minutes, own ones where it is empty."""
    took = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        config["applications"][0]["import_path"] = f"{GRAPH}:{build}"
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        environment = production_environment(folder / "diarizer") | {"PYTHONPATH": str(ROOT)}
        with (
            running_server("--config", str(path), *NODE, environment=environment) as server,
            Backend() as backend,
            Sources() as sources,
        ):
            one_job(server, backend, url_of(sources, folder, WARM_UP_MINUTES))
            for each in minutes:
                share = one_job(server, backend, url_of(sources, folder, each))
                took[each] = share.wall_s
                kind = "engines that answer at once" if walls else "the engines"
                say(share_row(f"{each:g} min, {kind}", share, walls.get(each, share.wall_s)))
    return took


def share_row(name: str, share: Share, of_wall_s: float) -> str:
    parts = (share.start_s, share.audio_s, share.between_s, share.end_s)
    return row(
        name,
        f"{share.wall_s:.2f}",
        f"{share.fetched_s:.2f}",
        f"{share.computed_s:.2f}",
        f"**{share.own_s:.2f}**",
        f"{share.own_s / of_wall_s:.1%}",
        " + ".join(f"{part:.2f}" for part in parts),
        ", ".join(f"{gap} {gap_s:.2f}" for gap, gap_s in share.gaps_s.items() if gap_s >= NAMED_S),
        f"{max(0.0, share.others):.0%}",
    )


def url_of(sources: Sources, folder: Path, minutes: float) -> str:
    """Where the server gets a talk of that length."""
    path = folder / f"{minutes:g}-min.flac"
    if not path.exists():
        soundfile.write(path, known_talk(60 * minutes), SAMPLE_RATE_HZ)
    return sources.file(path)


def one_job(server: RunningServer, backend: Backend, url: str) -> Share:
    """Run it, and read what became of its time."""
    log = server.state_dir / "logs" / "ml-server.jsonl"
    before_bytes, epoch_s = log.stat().st_size, time.time() - time.monotonic()
    watch, began_s = Stopwatch(session_of(server)), time.monotonic()
    job_id = server.start(url, fastapi_base_url=backend.url)
    end = backend.wait_end(job_id, within_s=TIMEOUT_S)
    spent = watch.read()
    assert end.body["status"] == "completed", end.body
    warnings = end.body["result"]["metadata"]["warning_codes"]
    assert not any("FAILED" in warning["code"] for warning in warnings), warnings
    with log.open(encoding="utf-8") as file:
        file.seek(before_bytes)
        lines = [json.loads(line) for line in file]
    return share_of((began_s + epoch_s, end.at + epoch_s), fetched(lines, job_id), computed(lines), spent.others)


def fetched(lines: Iterable[dict[str, Any]], job_id: str) -> Interval:
    """When the job's video was downloaded and decoded, by the extractor's line."""
    line = next(line for line in lines if line["message"] == "audio extracted" and line[JOB_FIELD] == job_id)
    end_s = datetime.fromisoformat(line["time"]).timestamp() - line["keep_s"]
    return end_s - line["extract_s"] - line["download_s"], end_s


def computed(lines: Iterable[dict[str, Any]]) -> list[Computation]:
    """When engines computed."""
    return [(line["began"], line["ended"], line["computed_in"]) for line in lines if line["message"] == COMPUTED]


def share_of(job: Interval, fetch: Interval, computations: Iterable[Computation], others: float) -> Share:
    """A job's time, by what covers it: `fetch`, then `computations` in any order, which may overlap."""
    gaps_s: Counter[str] = Counter()
    first, *rest = sorted(computations)
    until_s, name = first[1], first[2]
    covered_s = until_s - first[0]
    for begin, end, deployment in rest:
        if begin > until_s:
            gaps_s[f"{name} - {deployment}"] += begin - until_s
        if end > until_s:
            covered_s += end - max(begin, until_s)
            until_s, name = end, deployment
    return Share(
        wall_s=job[1] - job[0],
        fetched_s=fetch[1] - fetch[0],
        computed_s=covered_s,
        start_s=fetch[0] - job[0],
        audio_s=first[0] - fetch[1],
        between_s=gaps_s.total(),
        end_s=job[1] - until_s,
        gaps_s=dict(gaps_s.most_common()),
        others=others,
    )
