"""A0, R1: the whole edge: uvicorn's protocol, the proxy guard and the API in one, as Serve puts them together."""

from __future__ import annotations

import re
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from serve_app.api import proxy_guard
from serve_app.settings import Settings
from serve_app.storage.api_keys import digest
from serve_app.storage.database import Database
from tests.support.edge import edge
from tests.support.live_server import serving
from tests.support.process import ROOT
from tests.support.stores import stores

POST = "/api/upload-video/process-video"
JOBS = "/api/upload-video/jobs"
LOCAL = {
    "profile": "local",
    "extractor": {"net": {"schemes": ["http", "https"], "ports": "*", "networks": ["127.0.0.0/8"]}},
    "callbacks": {"origins": ["http://127.0.0.1:*"], "networks": ["127.0.0.0/8"]},
}
KEY = "k" * 40
PRODUCTION = {"profile": "production", "backend_url": "https://backend.example", "extractor": {}, "callbacks": {}}


@contextmanager
def asking(tmp_path, monkeypatch, *, guarded=True, **settings):
    """A function that sends a request from an address of this machine to a server with these settings."""
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.create()
    app = edge(Settings(**LOCAL | settings), database, stores(database, queue_limit=9, running_limit=1))
    if guarded:
        for middleware in proxy_guard.middlewares():
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    with serving(app, lifespan="off") as url:

        def ask(path=JOBS, *, peer="127.0.0.1", method="GET", json=None, **headers):
            transport = httpx.HTTPTransport(local_address=peer)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            with httpx.Client(base_url=url, transport=transport, trust_env=False, timeout=30) as http:
                return http.request(method, path, headers=named, json=json)

        yield ask
    database.close()


def test_every_header_that_the_api_reads_is_passed_on():
    """A0: what a middleware of the API looks up is on the guard's list."""
    read = set()
    for path in (ROOT / "serve_app" / "api").glob("*.py"):
        if path.name not in {"proxy_guard.py", "bounded_http.py", "refusal_messages.py"}:
            text = path.read_text(encoding="utf-8")
            read |= set(re.findall(r"headers\.get\(\"([a-z-]+)\"|\.get\(b\"([a-z-]+)\"|name == b\"([a-z-]+)\"", text))
    names = {name.encode() for found in read for name in found if name}
    assert names >= {b"authorization", b"x-forwarded-for", b"host", b"content-length", b"traceparent"}
    assert names <= proxy_guard.PASSED


def test_r1_addresses_count_through_the_whole_edge(tmp_path, monkeypatch):
    """R1: a named proxy's clients are told apart, another peer's header lets nobody in, uvicorn believes nobody."""
    auth = {"networks": ["127.0.0.0/8", "10.0.0.0/8"], "proxies": ["127.0.0.2/32"]}
    with asking(tmp_path, monkeypatch, auth=auth) as ask:
        assert ask().status_code == 200
        for peer, forwarded, status in (
            ("127.0.0.2", "8.8.8.8", 403),
            ("127.0.0.2", "10.1.2.3", 200),
            ("127.0.0.2", "10.1.2.3, 8.8.8.8", 403),
            ("127.0.0.3", "8.8.8.8", 403),
            ("127.0.0.1", "8.8.8.8", 403),
        ):
            assert ask(peer=peer, x_forwarded_for=forwarded).status_code == status, (peer, forwarded)
        assert ask("/health", peer="127.0.0.2", x_forwarded_for="8.8.8.8").status_code == 200


def test_r1_a_client_behind_a_proxy_has_its_own_rate(tmp_path, monkeypatch):
    """R1: rates count the client that a named proxy tells."""
    auth = {"networks": ["127.0.0.0/8", "10.0.0.0/8"], "proxies": ["127.0.0.2/32"]}
    with asking(tmp_path, monkeypatch, auth=auth, rate_limit="2/minute") as ask:
        asked = [ask(peer="127.0.0.2", x_forwarded_for=f"10.0.0.{n}").status_code for n in (1, 1, 1, 2, 2, 2)]
    assert asked == [200, 200, 429, 200, 200, 429]


def test_r1_a_foreign_host_name_is_refused(tmp_path, monkeypatch):
    """R1: DNS rebinding: 403 in the contract's form; health stays open."""
    with asking(tmp_path, monkeypatch) as ask:
        refused = ask(host="attacker.example")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED")
        assert ask("/health", host="attacker.example").status_code == 200
        assert ask(host="localhost").status_code == 200


def test_a0_the_other_headers_arrive(tmp_path, monkeypatch):
    """A0: keys open the API, a body's type and length are read, a browser's copy of a file stays good."""
    with asking(tmp_path, monkeypatch) as ask:
        page = ask("/console/main.js")
        assert ask("/console/main.js", if_none_match=page.headers["etag"]).status_code == 304
        job = {"job_id": "a", "video_url": "http://127.0.0.1:9/x.mp4"}
        assert ask(POST, method="POST", json=job).status_code == 200
        assert ask(POST, method="POST", json=job, content_type="text/plain").status_code == 400
    with asking(tmp_path, monkeypatch, auth={"mode": "keys", "key_hashes": [digest(KEY).hex()]}) as ask:
        assert ask().status_code == 401
        assert ask(authorization=f"Bearer {KEY}").status_code == 200


@pytest.mark.parametrize(
    ("settings", "failing"), [(PRODUCTION, ["proxy_guard"]), ({"profile": "local"}, [])], ids=["production", "local"]
)
def test_a1_production_without_the_guard_is_not_healthy(tmp_path, monkeypatch, settings, failing):
    """A1: Serve's proxies without the guard have no limits: `/health` says so, and a client cannot say otherwise."""
    with asking(tmp_path, monkeypatch, guarded=False, **settings) as ask:
        assert ask("/health").json()["failing"] == failing
        assert ask("/health").status_code == (503 if failing else 200)
    with asking(tmp_path, monkeypatch, **settings) as ask:
        assert ask("/health").json()["failing"] == []
