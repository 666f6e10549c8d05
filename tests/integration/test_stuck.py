"""D9 over the wire: what gets stuck, is late or is cancelled really stops, beside a neighbour that finishes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deployments.errors import ProcessingTimeoutError, StageTimeoutError
from deployments.types import SAMPLE_RATE_HZ
from serve_app import testing
from tests.support.process import ROOT, running_server
from tests.support.production import MODELS

pytestmark = pytest.mark.full

LONGEST_CALL_S = 6
PROCESSING_S = 90
FREE_S = 10
"""The promise: a slot is back within so many seconds of the deadline or the cancellation."""
LONG_S = 50 * 60
QUIET, SLOW, STUCK = 6_000, 18_000, 32_000
"""Peaks of sound that is heard at once, that takes seconds a chunk, and on which native code does not come back."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The local config on a graph that can be made to hang."""
    folder = tmp_path_factory.mktemp("stuck")
    config, faults = folder / "config.yaml", folder / "faults.json"
    testing.Faults.write(faults, slow_peak=SLOW // 2, stuck_peak=STUCK // 2 + SLOW // 2)
    text = (ROOT / "configs" / "local.yaml").read_text(encoding="utf-8")
    config.write_text(text.replace("serve_app.app:build", testing.IMPORT_PATH), encoding="utf-8")
    environment = {
        testing.FAULTS_VARIABLE: str(faults),
        "ML_SERVER_LOCALE": "en",
        "ML_SERVER_LIMITS__PROCESSING_S": str(PROCESSING_S),
        "ML_SERVER_TRANSCRIBER__LONGEST_CALL_S": str(LONGEST_CALL_S),
        "ML_SERVER_TRANSCRIBER__MODEL": str(MODELS / "asr"),
        "ML_SERVER_TRANSCRIBER__MAX_CHUNK_S": "8",
        "ML_SERVER_TRANSCRIBER__BATCH_SIZE": "1",
        "ML_SERVER_MODELS__ALLOW_UNPINNED": "true",
    }
    with running_server("--config", str(config), environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def videos(sources, clear, tmp_path_factory):
    """The same speech at three volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    samples, _ = soundfile.read(clear)
    parts = {"quiet": (QUIET, samples[: 4 * SAMPLE_RATE_HZ]), "stuck": (STUCK, samples[: 4 * SAMPLE_RATE_HZ])}
    parts["slow"] = (SLOW, np.tile(samples, 40))
    for name, (peak, sound) in parts.items():
        loud = (sound / np.abs(sound).max() * peak).astype(np.int16)
        soundfile.write(folder / f"{name}.wav", loud, SAMPLE_RATE_HZ)
    return {name: sources.file(folder / f"{name}.wav") for name in parts}


def in_the_engine(server, video, **fields):
    """A job whose chunk is in the recogniser's engine."""
    job_id = server.start(video, language="en", **fields)
    deadline = time.monotonic() + 30
    while server.status(job_id)["progress"] < 40 and server.status(job_id)["status"] == "processing":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return job_id


def slots_free_after_s(server):
    """How long it takes until no job has a slot."""
    began = time.monotonic()
    while server.http.get("/health").json()["jobs"]["running"]:
        assert time.monotonic() - began < FREE_S
        time.sleep(0.1)
    return time.monotonic() - began


def test_d9_a_stage_that_is_stuck_in_native_code(server, videos):
    """Its job fails with a clear error after two replicas, its neighbour completes, the slots and replicas are back."""
    before = set(server.replicas("Transcriber"))
    began = time.monotonic()
    stuck = server.start(videos["stuck"], language="en")
    ended = server.wait(stuck, within_s=PROCESSING_S)
    took_s = time.monotonic() - began
    assert (ended["status"], ended["error_message"]) == ("failed", StageTimeoutError().sentence("en"))
    free_s = slots_free_after_s(server)
    assert server.wait(server.start(videos["quiet"]), within_s=60)["status"] == "completed"
    deadline = time.monotonic() + 60
    while len(now := set(server.replicas("Transcriber"))) < len(before):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    print(f"stuck: failed after {took_s:.1f} s with 2 x {LONGEST_CALL_S} s allowed, slot free {free_s:.1f} s later")
    assert now - before


def test_d9_cancel_while_the_engine_is_stuck(server, videos):
    """The job ends and its slot is back within 10 s; a neighbour completes."""
    job_id = in_the_engine(server, videos["stuck"])
    neighbour = server.start(videos["quiet"])
    began = time.monotonic()
    assert server.cancel(job_id).status_code == 202
    assert server.wait(job_id, within_s=FREE_S)["error_code"] == "CANCELLED"
    took_s = time.monotonic() - began
    assert server.wait(neighbour, within_s=60)["status"] == "completed"
    print(f"cancelled after {took_s:.1f} s")


def children_of(pid):
    """The programs that a process runs beside itself."""
    found = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found[int(folder.name)] = (folder / "cmdline").read_bytes()
    return found


def test_d9_cancel_really_stops_ffmpeg(server, sources, tmp_path):
    """ffmpeg, which itself does not answer, is gone within 10 s of the cancellation, and what it wrote with it."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1) as file:
        for _ in range(LONG_S // 60):
            file.write(np.zeros(60 * SAMPLE_RATE_HZ, np.int16))
    [extractor] = server.replicas("AudioExtractor")
    job_id = server.start(sources.file(path))
    deadline = time.monotonic() + 60
    while not (programs := [pid for pid, line in children_of(extractor).items() if b"ffmpeg" in line.split(b"\0")[0]]):
        assert time.monotonic() < deadline, server.status(job_id)
    os.kill(programs[0], signal.SIGSTOP)
    began = time.monotonic()
    assert server.cancel(job_id).status_code == 202
    assert server.wait(job_id, within_s=FREE_S)["error_code"] == "CANCELLED"
    while set(children_of(extractor)) & set(programs):
        assert time.monotonic() - began < FREE_S
        time.sleep(0.02)
    print(f"ffmpeg gone after {time.monotonic() - began:.1f} s, slot after {slots_free_after_s(server):.1f} s more")
    while list((server.state_dir / "tmp").rglob("video*")):
        assert time.monotonic() - began < FREE_S


def test_d9_a_job_that_is_late(server, videos):
    """A job that used up its time ends within 10 s of it, a neighbour on the same recogniser completes."""
    began = time.monotonic()
    late = in_the_engine(server, videos["slow"], max_workers=1)
    assert server.wait(server.start(videos["quiet"]), within_s=PROCESSING_S)["status"] == "completed"
    ended = server.wait(late, within_s=PROCESSING_S + FREE_S)
    took_s = time.monotonic() - began
    sentence = ProcessingTimeoutError(limit_min=PROCESSING_S / 60).sentence("en")
    assert (ended["error_code"], ended["error_message"]) == ("PROCESSING_TIMEOUT", sentence)
    print(f"late: ended after {took_s:.1f} s of {PROCESSING_S}, slot free {slots_free_after_s(server):.1f} s later")
    assert PROCESSING_S <= took_s < PROCESSING_S + FREE_S
