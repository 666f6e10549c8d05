"""Connections to a PostgreSQL server that has failed over to another one: which are used again, which are not."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from serve_app.storage.database import BUSY_TIMEOUT_S, Database
from tests.support.jobs import new_job
from tests.support.stores import stores

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def vanished_host() -> Iterator[int]:
    """The port of a host that answers nothing, not even that nobody listens: its queue of connections is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            waiting = sockets.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


def test_d10_a_host_that_vanished_leaves_time_for_the_other(postgres_server):
    """D10: where the first of two hosts does not answer, the second is connected to within a request's time."""
    with postgres_server.database() as url, vanished_host() as port:
        there = make_url(url)
        hosts = {"host": f"127.0.0.1,{there.query['host']}", "port": f"{port},{there.query['port']}"}
        both = there.set(query={**hosts, "target_session_attrs": "read-write"})
        database = Database(both.render_as_string(hide_password=False))
        began = time.monotonic()
        with database.read() as db:
            assert db.exec_driver_sql("SELECT 1").scalar() == 1
        assert time.monotonic() - began < BUSY_TIMEOUT_S
        database.close()


def test_d10_a_read_only_server_is_left(postgres_server):
    """D10: a connection over which nothing can be written is not used again: the next one may reach the primary."""
    with postgres_server.database() as url:
        database = Database(url)
        database.create()
        store = stores(database, queue_limit=10, running_limit=1)
        database.close()
        postgres_server.set_default(url, "default_transaction_read_only", "on")
        for job_id in ("a", "b"):
            with pytest.raises(SQLAlchemyError):
                store.jobs.submit_job(new_job(job_id))
        postgres_server.set_default(url, "default_transaction_read_only", "off")
        assert store.jobs.submit_job(new_job("c")).started
        database.close()


def test_a_connection_in_use_is_closed_when_it_comes_back(postgres_server):
    """`close` of a pool forgets the connections that threads still use; they would stay open on the server."""
    with postgres_server.database() as url:
        database = Database(url)
        with database.read() as reading, database.write() as writing:
            drivers = [db.connection.driver_connection for db in (reading, writing)]
            database.close()
            assert not any(driver.closed for driver in drivers)
        assert all(driver.closed for driver in drivers)
