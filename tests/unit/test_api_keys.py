from __future__ import annotations

import asyncio
import hashlib
import hmac
import time

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from sqlalchemy import text

from serve_app.api import request_checks as keys_module
from serve_app.api.request_checks import KeyRing
from serve_app.cli.main import main
from serve_app.settings import Settings
from serve_app.storage.api_keys import KeyNameError, KeyStore
from serve_app.storage.database import Database
from tests.support.edge import edge as edge_over
from tests.support.stores import stores

JOBS = "/api/upload-video/jobs"


@pytest.fixture
def store(database):
    return KeyStore(database)


def edge(database, *fixed, **overrides):
    """An ingress replica of its own over the database."""
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in fixed]
    settings = Settings(profile="local", auth={"mode": "keys", "key_hashes": hashes}, **overrides)
    jobs = stores(database, queue_limit=10, running_limit=10)
    return TestClient(edge_over(settings, database, jobs), raise_server_exceptions=False)


def ask(http, key, path=JOBS):
    return http.get(path, headers={"authorization": f"Bearer {key}"}).status_code


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(keys_module, "FRESH_S", -1)


def test_a2_keys_are_made_rotated_and_revoked_without_a_restart(database, store, at_once):
    """A2: a new key works on replicas that run, beside the old one and those of the settings; a revoked one stops."""
    replicas = [edge(database, "fixed"), edge(database, "fixed")]
    first = store.add("backend-1")
    assert [ask(http, key) for http in replicas for key in (first, "fixed", "mls_wrong")] == [200, 200, 401] * 2
    second = store.add("backend-2")
    assert [ask(http, key) for http in replicas for key in (first, second)] == [200] * 4
    assert store.revoke("backend-1")
    assert [ask(http, key) for http in replicas for key in (first, second)] == [401, 200] * 2
    assert [key.name for key in store.list()] == ["backend-2"]
    assert not store.revoke("backend-1")


def test_a2_a_change_is_known_in_time(database, store, monkeypatch):
    """A2: the database is asked at most once in `FRESH_S`, so a change counts after so long."""
    monkeypatch.setattr(keys_module, "FRESH_S", 0.2)
    http = edge(database)
    key = store.add("a")
    assert ask(http, key) == 200
    store.revoke("a")
    deadline = time.monotonic() + 10
    while ask(http, key) == 200:
        assert time.monotonic() < deadline
    assert ask(http, key) == 401


async def test_a2_the_database_is_not_asked_for_every_request(database, store, monkeypatch):
    """A2: a flood of wrong keys costs the database nothing."""
    asked = []
    monkeypatch.setattr(store, "digests", lambda: asked.append(1) or ())
    ring = KeyRing((), store)
    for _ in range(100):
        with pytest.raises(keys_module.UnauthorizedError):
            await ring.check("Bearer mls_guess")
    assert len(asked) == 1


def test_a2_only_hashes_are_kept(database, store):
    """A2: what the database holds of a key is no key; each key is new, long and recognisable."""
    made = {name: store.add(name) for name in ("a", "b")}
    assert len(set(made.values())) == 2
    with database.read() as db:
        rows = {row.name: row.digest for row in db.execute(text("SELECT name, digest FROM api_keys"))}
    for name, key in made.items():
        assert key.startswith("mls_")
        assert len(key) >= 47
        assert rows[name] == hashlib.sha256(key.encode()).hexdigest()


def test_a2_comparison_takes_its_time(store, monkeypatch):
    """A2: each known key is compared, in constant time, whichever one was right."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(other) or real(one, other))
    first, _ = store.add("first"), store.add("second")
    ring = KeyRing([hashlib.sha256(b"fixed").hexdigest()], store)
    for key in (first, "fixed"):
        compared.clear()
        asyncio.run(ring.check(f"Bearer {key}"))
        assert len(compared) == 3
    compared.clear()
    with pytest.raises(keys_module.UnauthorizedError):
        asyncio.run(ring.check("Bearer wrong"))
    assert len(compared) == 3


@pytest.mark.parametrize("docs", [False, True])
def test_a2_every_route_but_health_wants_a_key(database, docs):
    """A2: each route of the app, the framework's own and those that are not there: 401, also for odd spellings."""
    http = edge(database, "good", docs=docs)
    routes = [
        (method, path.replace("{job_id}", "x")) for path, does in http.app.openapi()["paths"].items() for method in does
    ]
    assert len(routes) == 12
    routes += [
        ("GET", path)
        for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json", "/redoc", "/health/", "//health", "/HEALTH")
    ]
    routes += [("GET", "/api/%2e%2e/health"), ("GET", "/health%2f..%2fapi"), ("PATCH", JOBS), ("OPTIONS", JOBS)]
    for method, path in routes:
        for key in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer "}, {"authorization": "Basic good"}):
            answer = http.request(method, f"http://testserver{path}", headers=key)  # else //health is a host
            expected = {200, 405} if path == "/health" else {401}
            assert answer.status_code in expected, (method, path, key)
    assert http.get("/health").status_code == 200
    assert (ask(http, "good", "/docs"), ask(http, "good", "/openapi.json")) == ((200, 200) if docs else (404, 404))


def test_a2_without_any_key_nobody_gets_in(database):
    """A2: `auth.mode: keys` before the first key: 401, not open to all."""
    http = edge(database)
    assert [ask(http, key) for key in ("", "mls_", "None")] == [401] * 3


def test_a2_a_database_that_is_away_opens_nothing_and_shuts_out_nobody(database, store, at_once):
    """A2: what was known stays good; where nothing was ever known the answer is 503, not 401; fixed keys work."""
    key = store.add("a")
    knows, new = edge(database, "fixed"), edge(database, "fixed")
    assert ask(knows, key) == 200
    with database.write() as db:
        db.execute(text("ALTER TABLE api_keys RENAME TO gone"))
    assert [ask(knows, sent) for sent in (key, "mls_wrong", "fixed")] == [200, 401, 200]
    assert [ask(new, sent) for sent in (key, "fixed")] == [503, 200]
    assert new.get(JOBS).status_code == 401


def test_a2_names(store):
    """A2: a name is one key's, and short and plain."""
    store.add("a")
    with pytest.raises(KeyNameError, match="already"):
        store.add("a")
    for name in ("", "a b", "-a", "a\n", "a" * 65, "../a", "ä"):
        with pytest.raises(KeyNameError):
            store.add(name)
    assert [key.name for key in store.list()] == ["a"]


def test_a2_the_command_line(tmp_path, monkeypatch):
    """A2: `ml-server keys` prints a key once, alone on its line; lists names only; says what it cannot do."""
    monkeypatch.setenv("ML_SERVER_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ML_SERVER_AUTH__MODE", "keys")
    run = CliRunner()

    def keys(*arguments):
        return run.invoke(main, ["keys", *arguments])

    added = keys("add", "backend")
    assert added.exit_code == 0
    key = added.stdout.strip()
    assert key.startswith("mls_")
    assert "only time" in added.stderr
    listed = keys("list")
    assert listed.stdout.startswith("backend\t20")
    assert key not in listed.output
    database = Database(f"sqlite:///{tmp_path / 'ml-server.db'}")
    assert ask(edge(database), key) == 200
    assert keys("add", "backend").exit_code == 1
    assert keys("revoke", "backend").exit_code == 0
    assert ask(edge(database), key) == 401
    gone = keys("revoke", "backend")
    assert (gone.exit_code, "there is no key named backend" in gone.output) == (1, True)
    database.close()
