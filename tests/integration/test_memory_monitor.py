"""Ray's memory monitor kills processes of a server that computes: what becomes of its jobs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from deployments.errors import OutOfResourcesError
from tests.chaos.server import TITLES, MortalServer
from tests.support.sounds import speech, written
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.full

ROOM_KB = 6_000_000
"""That the server and whoever else runs may take beyond what is in use before it starts."""
BEYOND_KB = 700_000
HOG = """
import sys, time
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
time.sleep(float(sys.argv[2]))
"""
"""A process of somebody else's that takes memory for a while."""
HOG_S = 3.0


def memory_kb() -> tuple[int, int]:
    """All of the machine's, and what is in use, as the monitor counts it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return found["MemTotal"], found["MemTotal"] - found["MemAvailable"]


@pytest.fixture
def limit_kb():
    """Where more is used, the monitor kills processes of Ray's until less is."""
    return memory_kb()[1] + ROOM_KB


@pytest.fixture
def server(limit_kb):
    folder = tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True)  # short: Ray's sockets
    share = limit_kb / memory_kb()[0]
    monitor = {"RAY_memory_usage_threshold": f"{share:.4f}", "RAY_memory_monitor_refresh_ms": "250"}
    with folder as path, MortalServer(Path(path), environment=monitor) as server:
        yield server


@pytest.mark.timeout(900)
def test_d6_the_memory_monitor_costs_no_job(server, limit_kb, sources, backend, tmp_path):
    """D6: ten jobs run while it kills what it finds, three times: none is lost, each ends as usual.

    One whose stage it kills again and again may end with INSUFFICIENT_RESOURCES.
    """
    video = sources.file(written(tmp_path / "talk.wav", speech("english_espeak")))
    with SteadyLoad(server.url, server.database_url, video, backend, in_flight=12, post_timeout_s=60) as load:
        killed = Counter()
        for _ in range(3):
            load.wait(lambda rows: sum(job.state == "running" for job in rows) >= 8, within_s=200)
            before = {name: set(server.pids(name)) for name in TITLES}
            missing_kb = limit_kb + BEYOND_KB - memory_kb()[1]
            subprocess.run([sys.executable, "-c", HOG, str(1024 * missing_kb), str(HOG_S)], check=True, timeout=120)
            killed.update({name: len(before[name] - set(server.pids(name))) for name in TITLES})
            time.sleep(5)
        print(f"gone: {+killed}")
        assert killed.total() - killed["driver"] > 0  # jobs that end take their drivers along
        print(f"all had ended {load.finish(within_s=400):.0f} s later; answers: {Counter(load.answers)}")
        print(f"ends: {Counter(job.error_code for job in load.looks[-1].rows.values())}")
        load.check(may_fail=OutOfResourcesError.code)
