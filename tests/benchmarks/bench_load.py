"""How fast the server answers, idle and busy, and what becomes of ten and twenty jobs at once."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from deployments.types import SAMPLE_RATE_HZ
from tests.benchmarks.bench_server import JOB_TIMEOUT_S, OTHERS, SETTLE_S, post_to_end, sample
from tests.benchmarks.footprint import Spent, Stopwatch, session_of
from tests.benchmarks.load_client import Answers, Asking, Plan, health_beside
from tests.benchmarks.report import row, say, table
from tests.benchmarks.talks import dense_talk
from tests.support.backend import Backend
from tests.support.process import RunningServer, running_server
from tests.support.servers import hanging, status
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNNING = 10
QUEUED = 100
"""The contract's limits, which are the defaults."""
ROOMY = {"ML_SERVER_LIMITS__QUEUED_JOBS": "2000", "ML_SERVER_EXTRACTOR__DOWNLOAD__STALL_S": "900"}
"""For the latencies only: room for enough fresh jobs for a 99th percentile, patience with videos that do not come."""
POSTS = 300
SLOW_PER_S = 2
"""POSTs where each may start a job."""
ALL_TIMEOUT_S = 900
LONG_S = 300
"""Ten of these take several times as long as `POSTS` posts."""
AT_WORK = 25
"""Progress of a job whose audio is there: its driver has started."""
LOOK_EVERY_S = 1.0


def main(arguments: Sequence[str] = ()) -> None:
    """Print two tables; `arguments` may name one of them: answers or jobs."""
    if "answers" in (arguments or "answers"):
        answers()
    if "jobs" in (arguments or "jobs"):
        jobs()


def answers() -> None:
    """How long callers wait for an answer."""
    with running_server(environment=ROOMY) as server, Sources() as sources, Backend() as backend:
        post_to_end(server, backend, sources.file(sample()))
        time.sleep(SETTLE_S)
        head = ["answers", "POST: n", "p50, ms", "p99, ms (aim ≤ 50)", "max, ms"]
        head += ["health: n", "p50, ms", "p95, ms (aim ≤ 50)", "max, ms", OTHERS]
        say(table(head, []))
        while_nothing_runs(server, sources)
        while_jobs_fail(server, sources)
        while_long_jobs_run(server, sources)
        while_jobs_run(server, sources, backend)
    say()


def jobs() -> None:
    with running_server() as server, Sources() as sources, Backend() as backend:
        post_to_end(server, backend, sources.file(sample()))
        say(table(["at once", "measured"], []))
        ten_at_once(server, sources, backend)
        twenty_at_once(server, sources, backend)
        one_too_many(server, sources)
    say()


def while_nothing_runs(server: RunningServer, sources: Sources) -> None:
    """All slots wait for videos that do not come, so the machine is idle and each POST is a commit and an answer."""
    holding = [server.start(sources.serve(hanging)) for _ in range(RUNNING)]
    for job_id in holding:
        server.wait(job_id, "processing")
    time.sleep(SETTLE_S)
    url = sources.serve(status(404))
    steady = Plan(server_url=server.url, rate_per_s=20, count=POSTS, video_url=url)
    _row("idle, 20 POSTs/s", server, steady, running=RUNNING)
    slow = Plan(server_url=server.url, rate_per_s=SLOW_PER_S, count=POSTS, video_url=url)
    _row(f"idle, {SLOW_PER_S} POSTs/s", server, slow, running=RUNNING)
    burst = Plan(server_url=server.url, rate_per_s=0, count=POSTS, video_url=url)
    _row("idle, one right after the other", server, burst, running=RUNNING)
    cancel_all(server, holding)


def while_jobs_fail(server: RunningServer, sources: Sources) -> None:
    """Each POST starts a job, and its driver, that ends at once for want of a video."""
    url = sources.serve(status(404))
    _row(
        "each starts a job that fails",
        server,
        Plan(server_url=server.url, rate_per_s=SLOW_PER_S, count=60, video_url=url),
    )


def while_long_jobs_run(server: RunningServer, sources: Sources) -> None:
    """Ten talks of minutes are worked on, all of them past their start, and fresh jobs come in and wait."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "talk.flac"
        soundfile.write(path, dense_talk(LONG_S), SAMPLE_RATE_HZ)
        url = sources.file(path)
        started = [server.start(url) for _ in range(RUNNING)]
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while min(server.status(job_id)["progress"] for job_id in started) < AT_WORK:
            assert time.monotonic() < deadline
            time.sleep(LOOK_EVERY_S)
        waiting = Plan(server_url=server.url, rate_per_s=5, count=POSTS, video_url=sources.serve(status(404)))
        watch = Stopwatch(session_of(server))
        with health_beside(server.url) as health:
            posts = Asking(waiting).answers()
        name = "10 long talks run, 5 POSTs/s that wait"
        if any(server.status(job_id)["status"] != "processing" for job_id in started):
            name += "; NOT ALL RAN TO THE END OF IT"
        say(_line(name, posts, health, watch.read().disturbance))
        cancel_all(server, started + posts.job_ids)


def while_jobs_run(server: RunningServer, sources: Sources, backend: Backend) -> None:
    """Ten samples are worked on, and fresh jobs come in until the ten are done; so again, until there are enough."""
    url, missing = sources.file(sample()), sources.serve(status(404))
    plan = Plan(server_url=server.url, rate_per_s=SLOW_PER_S, count=1_000_000, video_url=missing)
    posts, health, disturbed = Answers(), Answers(), []
    while len(posts.seconds) < POSTS:
        watch = Stopwatch(session_of(server))
        started = [server.start(url, fastapi_base_url=backend.url) for _ in range(RUNNING)]
        posting = Asking(plan)
        with health_beside(server.url) as looks:
            for job_id in started:
                backend.wait_end(job_id, within_s=ALL_TIMEOUT_S)
            came = posting.stop()
        disturbed.append(watch.read().disturbance)
        posts, health = posts + came, health + looks
        cancel_all(server, started + came.job_ids)
    say(_line(f"10 samples run, {SLOW_PER_S} POSTs/s", posts, health, ", ".join(disturbed)))


def _row(name: str, server: RunningServer, plan: Plan, *, running: int = 0) -> None:
    watch = Stopwatch(session_of(server))
    with health_beside(server.url) as health:
        posts = Asking(plan).answers()
    say(_line(name, posts, health, watch.read().disturbance))
    cancel_all(server, posts.job_ids, running=running)


def _line(name: str, posts: Answers, health: Answers, disturbance: str) -> str:
    refused = Counter(status for status in posts.statuses + health.statuses if status != 200)
    if refused:
        name = f"{name}; NOT 200: {dict(refused)}"
    return row(name, *_percentiles(posts, 99), *_percentiles(health, 95), disturbance)


def _percentiles(answers: Answers, high: int) -> list[str]:
    times_ms = 1000 * np.asarray(answers.seconds)
    return [str(len(times_ms)), *(f"{ms:.0f}" for ms in (*np.percentile(times_ms, [50, high]), times_ms.max()))]


def cancel_all(server: RunningServer, job_ids: Sequence[str], *, running: int = 0) -> None:
    """End jobs, the newest first so that none of them starts meanwhile, and wait until no more than `running` are left.

    Raises:
        TimeoutError: They do not end.
    """
    for job_id in reversed(job_ids):
        server.cancel(job_id)
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while _unfinished(server) > running:
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {JOB_TIMEOUT_S} s: {server.http.get('/health').text}")
        time.sleep(LOOK_EVERY_S)
    time.sleep(SETTLE_S)


def _unfinished(server: RunningServer) -> int:
    jobs = server.http.get("/health").json()["jobs"]
    return int(jobs["running"] + jobs["queued"])


def ten_at_once(server: RunningServer, sources: Sources, backend: Backend) -> None:
    """As many as may run."""
    url, watch = sources.file(sample()), Stopwatch(session_of(server))
    started = [server.start(url, fastapi_base_url=backend.url) for _ in range(RUNNING)]
    ends = [backend.wait_end(job_id, within_s=ALL_TIMEOUT_S) for job_id in started]
    assert {end.body["status"] for end in ends} == {"completed"}
    say(_all_done(RUNNING, watch.read()))


def _all_done(count: int, spent: Spent) -> str:
    took = f"all completed after {spent.wall_s:.0f} s, {spent.processor_s / count:.1f} processor s each"
    return row(f"{count} samples", f"{took} ({OTHERS}: {spent.disturbance})")


def twenty_at_once(server: RunningServer, sources: Sources, backend: Backend) -> None:
    """Ten of them wait, and move up."""
    url, watch = sources.file(sample()), Stopwatch(session_of(server))
    started = [server.start(url, fastapi_base_url=backend.url) for _ in range(2 * RUNNING)]
    positions = watch_queue(server, started[RUNNING:])
    ends = [backend.wait_end(job_id, within_s=ALL_TIMEOUT_S) for job_id in started]
    assert {end.body["status"] for end in ends} == {"completed"}
    say(_all_done(2 * RUNNING, watch.read()))
    for number, seen in enumerate(positions, start=RUNNING + 1):
        assert seen, "it never waited"
        assert seen == sorted(seen, reverse=True), seen
        say(f"| queue_position of the {number}th | {', '.join(map(str, dict.fromkeys(seen)))} |")


def one_too_many(server: RunningServer, sources: Sources) -> None:
    """The slots are held by videos that do not come, the queue is full."""
    holding = [server.start(sources.serve(hanging)) for _ in range(RUNNING)]
    url = sources.serve(status(404))
    waiting = [server.start(url) for _ in range(QUEUED)]
    refused = server.post(url)
    assert refused.status_code == 503
    retry_after_s = refused.headers["retry-after"]
    say(row(f"one more than {RUNNING} + {QUEUED}", f"{refused.status_code}, Retry-After {retry_after_s} s"))
    cancel_all(server, holding + waiting)


def watch_queue(server: RunningServer, jobs: Sequence[str]) -> list[list[int]]:
    """The positions that each of `jobs` shows until none of them waits."""
    seen: list[list[int]] = [[] for _ in jobs]
    deadline = time.monotonic() + ALL_TIMEOUT_S
    waiting = True
    while waiting:
        assert time.monotonic() < deadline
        found = [server.status(job_id).get("queue_position") for job_id in jobs]
        for positions, position in zip(seen, found, strict=True):
            positions.extend([] if position is None else [position])
        waiting = any(position is not None for position in found)
        time.sleep(LOOK_EVERY_S)
    return seen
