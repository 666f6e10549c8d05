"""What callers who mean no good cost the others: huge bodies, idle connections, slow senders; and ten thousand jobs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import numpy as np
from sqlalchemy import create_engine, insert

from serve_app.api import proxy_guard
from serve_app.storage.tables import jobs, metadata
from tests.benchmarks.bench_load import cancel_all
from tests.benchmarks.bench_server import SETTLE_S
from tests.benchmarks.footprint import Stopwatch, session_of
from tests.benchmarks.report import row, say, table
from tests.support.process import RunningServer, running_server
from tests.support.servers import hanging, status
from tests.support.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from typing import TypeAlias

    Ask: TypeAlias = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]

BODIES, BODY_BYTES = 20, 400_000_000
IDLE = 1000
SLOW = 300
"""More than the ingress takes at once (200)."""
STORED = 10_000
ASKED = 200
RATE_PER_S = 20
PIECE = bytes(1 << 16)
LOOK_EVERY_S = 0.02
ROOMY = {"ML_SERVER_LIMITS__QUEUED_JOBS": "5000", "ML_SERVER_EXTRACTOR__DOWNLOAD__STALL_S": "900"}
POST = "/api/upload-video/process-video"


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table; `bare` adds the slow senders against a proxy without its proxy_guard."""
    say(table(["against", "measured"], []))
    with running_server(environment=ROOMY) as server, Sources() as sources:
        post, holding = prepared(server, sources)
        answers("nothing", server, post)
        large_bodies(server, chunked=False)
        large_bodies(server, chunked=True)
        with idle(server):
            answers(f"{IDLE} idle connections", server, post)
            with slow(server):
                answers(f"{IDLE} idle connections and {SLOW} slow senders", server, post)
        many_jobs(server)
        cancel_all(server, holding)
    if "bare" in arguments:
        with running_server(environment=ROOMY | {proxy_guard.VARIABLE: ""}) as server, Sources() as sources:
            post, _ = prepared(server, sources)
            with idle(server), slow(server):
                answers("the same without the proxy guard", server, post)


def prepared(server: RunningServer, sources: Sources) -> tuple[Ask, list[str]]:
    """What posts fresh jobs, which all wait: ten that wait for their videos hold the slots."""
    holding = [server.start(sources.serve(hanging)) for _ in range(10)]
    for job_id in holding:
        server.wait(job_id, "processing")
    time.sleep(SETTLE_S)
    video_url = sources.serve(status(404))

    async def post(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post(POST, json={"job_id": str(uuid.uuid4()), "video_url": video_url})

    return post, holding


def answers(name: str, server: RunningServer, ask: Ask, aim: str = "≤ 200") -> None:
    """How long callers wait who mean well."""
    watch = Stopwatch(session_of(server))
    seconds, refused = asyncio.run(_asked(server.url, ask))
    p50, p95 = 1000 * np.percentile(seconds, [50, 95])
    said = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms ({aim}), max {1000 * max(seconds):.0f} ms; {refused} of {ASKED} refused"
    say(row(name, f"{said} (others: {watch.read().disturbance})"))


async def _asked(url: str, ask: Ask) -> tuple[list[float], int]:
    seconds: list[float] = []
    refused = 0

    async def once(http: httpx.AsyncClient) -> None:
        nonlocal refused
        began = time.perf_counter()
        with suppress(httpx.HTTPError):
            refused -= (await ask(http)).status_code == 200
        refused += 1
        seconds.append(time.perf_counter() - began)

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http, asyncio.TaskGroup() as sent:
        for _ in range(ASKED):
            sent.create_task(once(http))
            await asyncio.sleep(1 / RATE_PER_S)
    return seconds, refused


def large_bodies(server: RunningServer, *, chunked: bool) -> None:
    """Twenty at once, as fast as the loopback lets them."""
    pid = server.processes("ray::ProxyActor")[0]
    before, peak = rss_mb(pid), [0.0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY_S):
            peak[0] = max(peak[0], rss_mb(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    sent: list[int] = []
    told: list[bytes] = []
    senders = [threading.Thread(target=_send, args=(server, chunked, sent, told)) for _ in range(BODIES)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    over.set()
    watcher.join()
    name = f"{BODIES} parallel bodies of {BODY_BYTES // 10**6} MB, {'chunked' if chunked else 'with their length'}"
    refused = sum(answer.startswith(b"HTTP/1.1 413") for answer in told)
    cost = f"proxy +{peak[0] - before:.0f} MB at its peak (from {before:.0f}); {sum(sent) / 1e6:.0f} MB got through"
    say(row(name, f"{cost}; 413 seen by {refused} of {BODIES}"))


def _send(server: RunningServer, chunked: bool, sent: list[int], told: list[bytes]) -> None:  # noqa: FBT001
    with connected(server) as line:
        size = "transfer-encoding: chunked" if chunked else f"content-length: {BODY_BYTES}"
        line.sendall(f"POST {POST} HTTP/1.1\r\nhost: a\r\n{size}\r\n\r\n".encode())
        done = 0
        with suppress(OSError):
            while done < BODY_BYTES:
                line.sendall(b"10000\r\n" + PIECE + b"\r\n" if chunked else PIECE)
                done += len(PIECE)
        sent.append(done)
        with suppress(OSError):
            told.append(line.recv(4096))


def connected(server: RunningServer) -> socket.socket:
    """A connection of our own."""
    parts = urlsplit(server.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30)


@contextmanager
def idle(server: RunningServer) -> Iterator[None]:
    """Connections that say nothing."""
    lines = [connected(server) for _ in range(IDLE)]
    try:
        yield
    finally:
        for line in lines:
            line.close()


@contextmanager
def slow(server: RunningServer) -> Iterator[None]:
    """Bodies that come a byte a second; who is cut off comes again."""
    over = threading.Event()

    def begin() -> socket.socket:
        line = connected(server)
        line.sendall(f"POST {POST} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".encode())
        return line

    def drip() -> None:
        lines = [begin() for _ in range(SLOW)]
        while not over.wait(1):
            for number, line in enumerate(lines):
                try:
                    line.sendall(b"{")
                except OSError:
                    line.close()
                    lines[number] = begin()
        for line in lines:
            line.close()

    dripping = threading.Thread(target=drip)
    dripping.start()
    time.sleep(2)
    try:
        yield
    finally:
        over.set()
        dripping.join()


def many_jobs(server: RunningServer) -> None:
    """Ten thousand that have ended lie in the table, and ten hold the slots."""
    ids = store_many(server)
    chosen = iter(ids[:: STORED // ASKED])

    async def ask_status(http: httpx.AsyncClient) -> httpx.Response:
        return await http.get(f"/api/upload-video/status/{next(chosen)}")

    async def ask_health(http: httpx.AsyncClient) -> httpx.Response:
        return await http.get("/health")

    async def ask_list(http: httpx.AsyncClient) -> httpx.Response:
        return await http.get("/api/upload-video/jobs", params={"limit": 50, "after": ids[STORED // 2]})

    for name, ask in (("status", ask_status), ("health", ask_health), ("a page of 50 jobs", ask_list)):
        answers(f"{STORED} stored jobs: {name}", server, ask, "≤ 50" if ask is not ask_list else "no aim")


def store_many(server: RunningServer) -> list[str]:
    """Ended jobs, put into the server's database."""
    now, ids = time.time(), [f"stored-{n:05}" for n in range(STORED)]
    blank = {
        column.name: {"INTEGER": 0, "FLOAT": now, "BOOLEAN": False, "JSON": {}}.get(str(column.type).split("(")[0], "x")
        for column in jobs.columns
        if not column.nullable
    }
    ended = blank | {"state": "failed", "stage": "done", "error_code": "DOWNLOAD_ERROR", "error_message": "no"}
    engine = create_engine(f"sqlite:///{server.state_dir / 'ml-server.db'}")
    with engine.begin() as db:
        rows = [ended | {"job_id": job_id, "created_at": now - n, "finished_at": now} for n, job_id in enumerate(ids)]
        db.execute(insert(metadata.tables["jobs"]), rows)
    engine.dispose()
    return ids


def rss_mb(pid: int) -> float:
    """What a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))
