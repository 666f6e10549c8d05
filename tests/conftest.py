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
