from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import browser as browsers
from tests.support import postgres

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background inherit "ignored"


WITHOUT_RAY = ("tests/unit/", "tests/integration/light/")
NICENESS = "7"
"""Of a session, as a server's: beside units with 0 it would get a sixth of the processors."""


def pytest_xdist_make_scheduler(config, log):
    """In two processes: one has all tests with servers, for a Ray may not start beside another on two cores."""
    from xdist.scheduler import LoadFileScheduling

    class OneForServers(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return super()._split_scope(nodeid) if nodeid.startswith(WITHOUT_RAY) else "servers"

    return OneForServers(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collecting imports everything and lets go of nothing: looking for garbage meanwhile takes a third of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item):
    """The other process takes no more than a server does (Linux shares by sessions, and a server's stands back)."""
    if "PYTEST_XDIST_WORKER" in os.environ and item.nodeid.startswith(WITHOUT_RAY) and os.getsid(0) != os.getpid():
        os.setsid()
        with suppress(OSError):  # no autogroups here, or no leave to write one just now: it is a courtesy
            Path("/proc/self/autogroup").write_text(NICENESS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is a coroutine function in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**given))
    return True


@pytest.fixture(scope="session", autouse=True)
def m7_no_secret_comes_out():
    """M7: no log, row, metric, answer or callback of any server here held a signed query, a traceback or a folder.

    Set up first, it ends last: when all servers have stopped.
    """
    from tests.support.leaks import WATCH

    yield
    print(f"\nM7 looked at {WATCH.summary()}")
    assert not WATCH.found, "\n".join(dict.fromkeys(WATCH.found))


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of our own, one for all tests."""
    postgres.require()
    with postgres.running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """A Chromium for the tests of a file."""
    browsers.require()
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def online(monkeypatch):
    """The hub's library as it is before `go_offline`, which is for a process's whole life; a test's ends sooner."""
    import huggingface_hub.constants
    from huggingface_hub.utils import _http

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(huggingface_hub.constants, name, False)
    _http.reset_sessions()


@pytest.fixture
def counted(monkeypatch):
    """What is counted goes to the test."""
    from tests.support.counted import Counted  # not for those who test something else

    return Counted(monkeypatch)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request):
    """What is promised of the store is kept on both databases."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def postgresql_url(postgres_server):
    """A server whose defaults would cost durability and the bound of the queue."""
    with postgres_server.database(synchronous_commit="off", default_transaction_isolation="repeatable read") as url:
        yield url


@pytest.fixture
def clock():
    from tests.support.clocks import Clock

    return Clock()


@pytest.fixture
def outbox(database, clock):
    """Tries that are due to the second."""
    from serve_app.storage.outbox import Outbox

    return Outbox(database, clock=clock)


@pytest.fixture
def store(settings):
    """The stores of the server that a test's `settings` describe."""
    from serve_app.orchestration.opening import open_stores
    from serve_app.storage.database import open_database

    database = open_database(settings)
    yield open_stores(settings, database)
    database.close()


@pytest.fixture(scope="session", autouse=True)
def tables_made_again():
    """Alembic takes its steps for the first empty database of a kind; the others get the same statements."""
    from serve_app.storage import database
    from tests.support import made_tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "migrate", made_tables.migrate)
        yield


@pytest.fixture
def tables_by_alembic(monkeypatch):
    """For tests of the steps themselves."""
    from serve_app.storage import database, migrations

    monkeypatch.setattr(database, "migrate", migrations.migrate)


@pytest.fixture
def database(database_url):
    from serve_app.storage.database import Database  # not for those who test something else

    database = Database(database_url)
    database.create()
    yield database
    database.close()
