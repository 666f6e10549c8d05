from __future__ import annotations

import pytest

from tests.support import postgres


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of our own, one for all tests."""
    postgres.require()
    with postgres.running_postgres() as server:
        yield server
