"""`serve deploy` from the release before to this one, with ten jobs running: none is lost (D14).

The old code runs from a folder behind a link; the upgrade points the link to this repository, as an installer would
replace the package, and then deploys. Jobs are posted all the time, so some run under the old code only, some under
the new one only, and some under both: their actors, the manager and the replicas are of either release meanwhile.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.chaos.server import REPLICAS, MortalServer, local_config
from tests.support.commands import BIN
from tests.support.process import ROOT, until
from tests.support.production import SMALL
from tests.support.sounds import in_a_row, speech, written
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.full

RELEASE_BEFORE = "040e870"
"""The last commit before modules, classes and remote methods were renamed."""
OLD_JOB_ACTOR = "ray::JobDriver"
"""The title of its job actors' processes."""
JOBS = 10
SAID = ("english_espeak", "english_espeak_f3") * 3
PROCESSES = ("manager", *REPLICAS)
"""What the deployment has to replace."""


class Server(MortalServer):
    """`ml-server up` whose code lies behind a link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {"PYTHONPATH": str(folder / "code"), "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180"}
        # elsewhere: Ray's workers look for modules in the folder in which the server was started, before PYTHONPATH
        program = ("env", f"--chdir={folder}", str(BIN / "ml-server"))
        super().__init__(folder, local_config(SMALL), program=program, environment=environment)

    def install(self, code: Path) -> None:
        """Let every process that starts from now on run this code."""
        new = self.folder / "code.new"
        new.symlink_to(code)
        new.rename(self.folder / "code")


@pytest.fixture(scope="module")
def release_before(tmp_path_factory):
    """The code of the release before, in a folder."""
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "code.tar"
    made = subprocess.run(
        ["git", "archive", f"--output={archive}", RELEASE_BEFORE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"the release before is not in this clone: {made.stderr.strip()}")
    shutil.unpack_archive(archive, folder / "code", filter="data")
    return folder / "code"


@pytest.fixture
def server(release_before):
    """The release before, running."""
    with tempfile.TemporaryDirectory(prefix="ml-", ignore_cleanup_errors=True) as folder:  # short: Ray's sockets
        server = Server(Path(folder))
        server.install(release_before)
        with server:
            yield server
            server.install(release_before)  # `up` itself is still of that release, and its stop imports the rest of it


@pytest.mark.timeout(3000)
def test_d14_an_upgrade_loses_no_job(server, sources, backend, tmp_path):
    """0 lost: every job completes, with the same text, told once and in order; running jobs do not begin anew."""
    video = sources.file(written(tmp_path / "talk.wav", in_a_row(*(speech(name) for name in SAID))))
    with SteadyLoad(server.url, server.database_url, video, backend, in_flight=JOBS) as load:
        load.wait(all_run, within_s=600)
        until(lambda: len(server.pids(OLD_JOB_ACTOR)) > JOBS / 2, within_s=600)
        old = {name: set(server.pids(name)) for name in PROCESSES}
        assert all(old.values())
        running = {job.job_id: job for job in load.running()}
        began = time.monotonic()
        server.install(ROOT)
        load.wait(lambda rows: any(job.state == "running" and job.job_id not in running for job in rows), within_s=600)
        server.deploy("next")  # only now: the old manager has begun to start actors, which get the new code
        until(lambda: not any(old[name] & set(server.pids(name)) for name in PROCESSES), within_s=300)
        until(lambda: len(server.pids("manager")) == 1, within_s=300)
        upgraded_s = time.monotonic() - began
        known = set(load.accepted)
        until(lambda: server.pids("driver"), within_s=300)
        load.wait(lambda rows: sum(job.state.ended for job in rows if job.job_id not in known) >= JOBS, within_s=600)
        load.finish(within_s=900)
        load.check()
        rows = load.looks[-1].rows
        print(f"upgraded in {upgraded_s:.0f} s; {len(rows)} jobs, of which {len(running)} ran at its beginning")
        again = [job_id for job_id, job in running.items() if rows[job_id].attempt > max(1, job.attempt)]
        print(f"begun anew: {len(again)} of those, {sum(job.attempt > 1 for job in rows.values())} of all")
        came = [backend.of(job_id) for job_id in rows]
        print(f"{sum(map(len, came))} callbacks, of which {sum(map(overtaken, came))} were overtaken")
        assert not again


def all_run(rows):
    return sum(job.state == "running" for job in rows) == JOBS


def overtaken(received):
    """How many callbacks came behind one with a higher number: receivers drop them, and the others are in order."""
    in_order = sorted(received, key=lambda got: got.sequence)
    assert [got.ended for got in in_order] == sorted(got.ended for got in in_order)
    told = [got.body["progress"] for got in in_order]
    assert told == sorted(told), told
    return sum(got.sequence < max(each.sequence for each in received[: i + 1]) for i, got in enumerate(received))
