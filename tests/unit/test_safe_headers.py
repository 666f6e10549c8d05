from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from serve_app.settings import Settings
from serve_app.storage.database import Database
from tests.support.edge import edge as edge_over
from tests.support.process import ROOT
from tests.support.stores import stores

JOBS = "/api/upload-video/jobs"


@pytest.fixture
def edge(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()

    def make(**overrides):
        server = Settings(profile="local", **overrides)
        jobs = stores(database, queue_limit=1, running_limit=1)
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
    """A4: no /docs and no document unless `docs` is set; then the page may run scripts of this server, and no other."""
    bare = edge()
    assert [bare.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    open_one = edge(docs=True)
    assert [open_one.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [200, 404, 200]
    page = open_one.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", policy["script-src"])
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a4_the_page_of_the_api_is_all_here(edge):
    """A4: what /docs loads is relative and there, with its type, and nothing on it names another host; no way out."""
    http = edge(docs=True)
    page = http.get("/docs").text
    assert not re.search("https?:|//[a-z]", page)
    loaded = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    places = {place for pair in loaded for place in pair if place}
    assert places == {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/favicon.png", "openapi.json"}
    for place in places:
        answer = http.get(f"/{place}")
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff"), place
    assert http.get("/docs/%2e%2e/core.py").json()["error"]["code"] == "NOT_FOUND"
    assert [edge().get(f"/{place}").status_code for place in places] == [404] * 4


def test_a4_the_root_leads_to_the_console(edge):
    """A4: 307, relative and without a key, where there is a console; else a refusal in the contract's form."""
    for mode in ("none", "keys"):
        root = edge(auth={"mode": mode}).get("/", follow_redirects=False)
        assert (root.status_code, root.headers["location"]) == (307, "console/")
    assert edge(auth={"mode": "keys"}, console=False).get("/").status_code == 401
    bare = edge(console=False).get("/")
    assert (bare.status_code, bare.json()["error"]["code"]) == (404, "NOT_FOUND")
    posted = edge().post("/")
    assert (posted.status_code, posted.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert edge(auth={"networks": ["10.0.0.0/8"]}).get("/").status_code == 403


def test_a4_production_has_no_page_of_the_api():
    """A4: of the configs that we ship only those for loopback show it."""
    configs = [ROOT / "serve_config.yaml", *(ROOT / "configs").glob("*.yaml")]
    showing = {config.name for config in configs if "docs: true" in config.read_text()}
    assert showing == {"local.yaml"}
