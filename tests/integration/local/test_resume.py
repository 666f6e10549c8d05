"""A driver that dies, over the wire: the real graph, whose last stage is held still so that the moment is sure."""

from __future__ import annotations

import os
import signal

import pytest
from sqlalchemy import select

from serve_app.jobs.stages import Step
from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from serve_app.storage.tables import jobs
from tests.support.process import held_still, until

KEPT = {"extraction", "detection", "transcription", "diarization", "tracks", "prosody"}
"""All that is there when only the moods are missing."""


@pytest.fixture
def database(server):
    database = Database(f"sqlite:///{server.state_dir / 'ml-server.db'}")
    yield database
    database.close()


def test_d5_a_killed_driver_goes_on_after_the_transcription(server, sources, short, database):
    """A driver killed once the transcript is kept: the second attempt does only what is missing; the same result."""
    url = sources.file(short)
    expected = server.wait(server.start(url))["result"]
    kept = Checkpoints(database)
    with held_still(server.replicas("EmotionAnalyzer")):
        job_id = server.start(url)
        until(lambda: kept.sources(job_id).keys() >= KEPT)
        (driver,) = server.drivers
        os.kill(driver, signal.SIGKILL)
        until(lambda: attempts(database, job_id) == 2)
    result = server.wait(job_id, within_s=120)["result"]
    assert set(result["metadata"].pop("stages")) == {"extraction", "analysis"}
    assert {"transcription", "diarization"} <= set(expected["metadata"].pop("stages"))
    for each in (result, expected):
        del each["metadata"]["processing_time"]
    assert result == expected
    assert attempts(database, job_id) == 2
    assert kept.sources(job_id).keys() == KEPT | {Step.EMOTION, Step.OVERLAP}  # as long as the job: it may run again


def attempts(database, job_id):
    """How many the job has had."""
    with database.read() as db:
        return db.execute(select(jobs.c.attempt).where(jobs.c.job_id == job_id)).scalar_one()
