"""D4 with real processes: a driver is stopped in the middle of its job."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing, suppress

import pytest

from serve_app.storage.leases import LEASE_S
from tests.support.process import until


def row(server, job_id: str) -> tuple[int, int]:
    with closing(sqlite3.connect(server.state_dir / "ml-server.db")) as db:
        attempt, beats = db.execute("SELECT attempt, beats FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return attempt, beats


@pytest.mark.full
def test_d4_a_stopped_driver_is_replaced(server, sources, conversation, backend):
    """D4: stopped (SIGSTOP), it loses its lease: another attempt completes the job; continued, it changes nothing."""
    job_id = server.start(sources.file(conversation), fastapi_base_url=backend.url)
    until(lambda: row(server, job_id)[0] == 1 and row(server, job_id)[1] > 1, within_s=60)
    [stopped] = server.drivers
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        until(lambda: row(server, job_id)[0] == 2, within_s=LEASE_S + 60)
        resumed_s = time.monotonic() - began
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    backend.wait_end(job_id, within_s=120)
    assert LEASE_S < resumed_s < LEASE_S + 60
    assert row(server, job_id)[0] == 2
    until(lambda: stopped not in server.drivers, within_s=30)
    ends = [got for got in backend.of(job_id) if got.ended]
    assert [got.body["status"] for got in ends] == ["completed"]
    print(f"resumed by another attempt after {resumed_s:.1f} s")
