"""`serve deploy` of a config that cannot start, under jobs: what is seen, and that the old config heals it."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from deployments.errors import OutOfResourcesError
from tests.chaos.server import MortalServer, fakes_config
from tests.support import broken_engine
from tests.support.sounds import speech, written
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.full

LOAD = {"in_flight": 4, "every_s": 6, "post_timeout_s": 60}
"""The only ingress is replaced, too: a POST waits for the new one, up to Serve's 30 s."""
BROKEN_S = 40
"""How long the operator takes to deploy the old config again."""


@pytest.fixture(scope="module")
def server():
    folder = tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True)  # short: Ray's sockets
    with folder as path, MortalServer(Path(path)) as server:
        yield server


@pytest.fixture
def load(server, sources, backend, tmp_path):
    """Jobs are posted all the time."""
    video = sources.file(written(tmp_path / "talk.wav", speech("english_espeak")))
    with SteadyLoad(server.url, server.database_url, video, backend, **LOAD) as load:
        yield load


def without_model():
    """A config whose recogniser's model does not exist: it is looked for where the app is built."""
    config = fakes_config()
    config["applications"][0]["args"]["transcriber"]["model"] = "/no/such/model"
    return config


def with_broken_engine():
    """A config whose recogniser's engine raises as it is made: its replicas never start."""
    config = fakes_config()
    config["applications"][0]["import_path"] = f"{broken_engine.__name__}:build"
    return config


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("bad", "said", "may_fail"),
    [
        (without_model, "/no/such/model", None),
        (with_broken_engine, broken_engine.MESSAGE, OutOfResourcesError.code),
    ],
    ids=["no model", "broken engine"],
)
def test_d7_a_deploy_that_cannot_start_loses_no_job(server, load, bad, said, may_fail):
    """D7: Serve says what failed, POSTs get 200 or 503 with Retry-After, and the old config heals it: 0 jobs lost.

    Without the model nothing is replaced, and nothing fails. An engine that cannot start has replaced one that worked:
    a job that needs it fails after half a minute of tries, as on a machine without resources.
    """
    load.wait(lambda rows: sum(job.state == "running" for job in rows) > 1, within_s=120)
    began = time.monotonic()
    application = server.put(bad())
    assert application["status"] == "DEPLOY_FAILED"
    assert said in str(application)
    failed_s = time.monotonic() - began
    time.sleep(BROKEN_S)
    assert server.http.get("/health").json()["accepting"]
    began = time.monotonic()
    assert server.put(fakes_config())["status"] == "RUNNING"
    print(f"failed after {failed_s:.0f} s; healed in {time.monotonic() - began:.0f} s")
    known = set(load.accepted)
    load.wait(lambda rows: any(job.state == "completed" for job in rows if job.job_id not in known), within_s=200)
    print(f"all had ended {load.finish(within_s=200):.0f} s later; answers: {Counter(load.answers)}")
    print(f"ends: {Counter(job.error_code for job in load.looks[-1].rows.values())}")
    load.check(may_fail=may_fail)
    assert all(status == 200 or (status == 503 and retry_after) for status, retry_after in load.answers)
