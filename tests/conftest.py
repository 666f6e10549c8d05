from __future__ import annotations

import signal

import pytest

from tests.support import postgres

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background inherit "ignored"


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of our own, one for all tests."""
    postgres.require()
    with postgres.running_postgres() as server:
        yield server


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """Where several processes test: the tests of a file stay together, and those of the files that share a server."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
