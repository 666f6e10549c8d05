from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from serve_app.jobs.database import Database
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings
from tests.support.edge import edge as edge_over
from tests.support.process import ROOT

JOBS = "/api/upload-video/jobs"


@pytest.fixture
def edge(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()

    def make(**overrides):
        server = Settings(profile="local", **overrides)
        jobs = JobStore(database, queue_limit=1, running_limit=1)
        return TestClient(edge_over(server, database, jobs))

    yield make
    database.close()


@pytest.mark.parametrize("path", ["/health", JOBS, "/nothing", f"{JOBS}?limit=0", f"{JOBS}/x/timeline"])
@pytest.mark.parametrize("mode", ["none", "keys"])
def test_a4_no_browser_keeps_or_guesses_an_answer(edge, path, mode):
    """A4: every answer, refusals too, is not to be stored, not to be guessed at, and not to be shown as a page."""
    headers = edge(auth={"mode": mode}).get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("cache-control") == ["no-store"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_a4_the_page_of_the_api_is_there_where_it_is_wanted(edge):
    """A4: no /docs and no document unless `docs` is set; then the page may load its script."""
    bare = edge()
    assert [bare.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    open_one = edge(docs=True)
    assert [open_one.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [200, 404, 200]
    assert "content-security-policy" not in open_one.get("/docs").headers
    assert open_one.get("/docs").headers["x-content-type-options"] == "nosniff"


def test_a4_production_has_no_page_of_the_api():
    """A4: of the configs that we ship only those for loopback show it."""
    configs = [ROOT / "serve_config.yaml", *(ROOT / "configs").glob("*.yaml")]
    showing = {config.name for config in configs if "docs: true" in config.read_text()}
    assert showing == {"local.yaml", "demo.yaml"}
