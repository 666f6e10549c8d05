"""D4 with real processes: a driver is stopped in the middle of its job."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from serve_app.cli.child_process import session_members
from serve_app.storage.leases import LEASE_S


def drivers(server) -> list[int]:
    """The processes of drivers, by the titles that Ray gives them."""
    found = []
    for pid in session_members(server.process._process.pid):
        with suppress(OSError):
            if re.match(r"ray::JobActor", Path(f"/proc/{pid}/cmdline").read_text()):
                found.append(pid)
    return found


def row(server, job_id: str) -> tuple[int, int]:
    with closing(sqlite3.connect(server.state_dir / "ml-server.db")) as db:
        attempt, beats = db.execute("SELECT attempt, beats FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return attempt, beats


def wait_for(condition, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.full
def test_d4_a_stopped_driver_is_replaced(server, sources, conversation, backend):
    """D4: stopped (SIGSTOP), it loses its lease: another attempt completes the job; continued, it changes nothing."""
    job_id = server.start(sources.file(conversation), fastapi_base_url=backend.url)
    wait_for(lambda: row(server, job_id)[0] == 1 and row(server, job_id)[1] > 1, within_s=60)
    [stopped] = drivers(server)
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        wait_for(lambda: row(server, job_id)[0] == 2, within_s=LEASE_S + 60)
        resumed_s = time.monotonic() - began
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    backend.wait_end(job_id, within_s=120)
    assert LEASE_S < resumed_s < LEASE_S + 60
    assert row(server, job_id)[0] == 2
    wait_for(lambda: stopped not in drivers(server), within_s=30)
    ends = [got for got in backend.of(job_id) if got.ended]
    assert [got.body["status"] for got in ends] == ["completed"]
    print(f"resumed by another attempt after {resumed_s:.1f} s")
