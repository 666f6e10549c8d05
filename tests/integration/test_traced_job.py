"""Traces of a real server: processes of Ray that do not know of each other, one of them killed."""

from __future__ import annotations

import os
import signal

import pytest

from serve_app.storage.checkpoints import Checkpoints
from serve_app.storage.database import Database
from tests.integration.local.test_resume import KEPT
from tests.support.collector import collecting, tree
from tests.support.process import held_still, running_server, until


@pytest.mark.full
def test_one_trace_over_all_processes_and_a_killed_driver(sources, short, backend):
    """API, two drivers and the manager tell one trace, whole from the POST to the acknowledged callback."""
    with (
        collecting() as collector,
        running_server(environment={"ML_SERVER_TRACING__ENDPOINT": collector.url}) as server,
    ):
        database = Database(f"sqlite:///{server.state_dir / 'ml-server.db'}")
        with held_still(server.replicas("EmotionAnalyzer")):
            job_id = server.start(sources.file(short), fastapi_base_url=backend.url)
            until(lambda: Checkpoints(database).sources(job_id).keys() >= KEPT)
            (driver,) = server.drivers
            os.kill(driver, signal.SIGKILL)
        backend.wait_end(job_id, within_s=120)
        spans = collector.of(job_id, until="acknowledged")
        database.close()
    print("\n".join(tree(spans)))
    attempts = sorted((span for span in spans if span.name == "attempt"), key=lambda span: span.start_s)
    assert [(span.error, span.attributes["ecg.end"]) for span in attempts] == [("died", "attempt"), (None, "completed")]
    assert {span.process for span in spans} == {"api", "driver"}
    calls = {"extractor.prepare", "transcriber.transcribe", "diarizer.embed", "prosody.tracks", "emotion.analyze"}
    assert {span.name for span in spans} >= {"queue", "progress callback", "terminal callback", "assembly", *calls}
