"""What Ray's dashboard shows of a server at work, as its API tells it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from serve_app.cli.child_process import session_members
from tests.support.counted import Scrape
from tests.support.process import held_still, until

JOBS = "/api/upload-video/jobs"
STAGES = {"AudioExtractor", "SpeechDetector", "Transcriber", "Diarizer", "ProsodyAnalyzer", "EmotionAnalyzer"}


@pytest.fixture(scope="module")
def dashboard(server):
    """Its API, with the token of the state directory."""
    told = server.state_dir / "up.log"
    until(lambda: "Ray dashboard" in told.read_text())
    url = re.search(r"Ray dashboard (http://[\d.:]+)", told.read_text())[1]
    headers = {"authorization": f"Bearer {(server.state_dir / 'ray-token').read_text().strip()}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def test_the_dashboard_wants_the_token(dashboard):
    """Without it nobody sees anything."""
    anonymous = httpx.get(f"{dashboard.base_url}/api/v0/actors", trust_env=False, timeout=30)
    assert anonymous.status_code == 401


def test_actors_are_found_by_job_and_stage(server, dashboard, sources, short):
    """A repr tells the actor's job, the manager's bound, each replica's stage; the job's page names its actor."""
    with held_still(server.replicas("EmotionAnalyzer")):
        job_id = server.start(sources.file(short))
        until(lambda: server.status(job_id)["progress"] > 50)
        [line] = [job for job in server.http.get(JOBS).json()["jobs"] if job["job_id"] == job_id]
        assert server.http.get(f"{JOBS}/{job_id}/timeline").json()["actor"] == line["actor"]
        shown = "\n".join([titles(server), Scrape(server.state_dir).text])
        actors = dashboard.get("/api/v0/actors", params={"detail": 1, "limit": 1000}).json()["data"]["result"]["result"]
        serve = dashboard.get("/api/serve/applications/").json()["applications"]["ml-server"]["deployments"]
    server.wait(job_id, within_s=120)
    assert job_id not in shown
    assert "ray::JobActor" in shown
    alive = {actor["name"]: actor for actor in actors if actor["state"] == "ALIVE"}
    assert alive[line["actor"]]["repr_name"] == f"JobActor({job_id})"
    assert alive["job-manager"]["repr_name"] == "JobManager(10 jobs at once)"
    for stage in STAGES | {"Ingress"}:
        named = [actor for name, actor in alive.items() if name.startswith(f"SERVE_REPLICA::ml-server#{stage}#")]
        assert {actor["class_name"] for actor in named} == {f"ServeReplica:ml-server:{stage}"}
        assert serve[stage]["status"] == "HEALTHY"


def titles(server) -> str:
    """Of all processes of the server, as `ps` and the page of the cluster show them."""
    shown = []
    for process in session_members(server.process._process.pid):
        try:
            shown.append(Path(f"/proc/{process}/cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return "\n".join(shown)
