"""A PostgreSQL server of the tests' own: made in a temporary folder, reached by a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.needs import need
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN = Path("/usr/lib/postgresql")
USER = "postgres"
"""The database's superuser; on a machine where we are root also who runs the server, which refuses root."""
START_S = 60
FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=200", "listen_addresses=")
"""Nothing here has to survive the machine. No TCP: the socket lies in the server's own folder."""

LOCALE = ("--encoding=UTF8", "--locale=C.UTF-8")


class Postgres:
    """A server that runs; every `database` is fresh."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, database: str) -> str:
        """As an operator writes it."""
        return f"postgresql://{USER}@/{database}?host={self._folder}"

    @contextmanager
    def database(self, **defaults: str) -> Iterator[str]:
        """The URL of an empty database with these default settings; dropped at the end, whoever is still connected."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            for setting, value in defaults.items():
                self._execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """One database ends all connections and takes no new ones: to its clients, a server that is down."""
        name = url.rpartition("@/")[2].partition("?")[0]
        self._execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        try:
            self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
            yield
        finally:
            self._execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url(USER), autocommit=True) as connection:
            connection.execute(statement.encode())


def deadlocks(url: str) -> int:
    """How many deadlocks there were in a database, once all its other clients have gone: they report as they end."""
    import psycopg

    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = %s AND pid <> %s"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        pid = connection.info.backend_pid
        until(lambda: connection.execute(others, ("client backend", pid)).fetchone() == (0,))
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def missing() -> str | None:
    """What a PostgreSQL test lacks here; None where it can run."""
    if _binaries() is None:
        return "no PostgreSQL server here: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        return "no psycopg here: install the extra `postgres`"
    return None


def require() -> None:
    need(missing() is None, f"{missing()}")


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server for the time of the context."""
    binaries = _binaries()
    assert binaries is not None, missing()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    data = folder / "data"
    control = [binaries / "pg_ctl", "--pgdata", data, "--wait", "--timeout", START_S]
    settings = " ".join(f"-c {setting}" for setting in (*FAST, f"unix_socket_directories={folder}"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        _run(folder, binaries / "initdb", "--pgdata", data, "--username", USER, "--auth=trust", "--no-sync", *LOCALE)
        _run(folder, *control, "--log", folder / "log", "--options", settings, "start")
        try:
            yield Postgres(folder)
        finally:
            _run(folder, *control, "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, *command: object) -> None:
    """As a user that the server accepts; the error of a program that fails tells what it printed."""
    other: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * START_S,
        check=False,
        **other,
    )
    log = folder / "log"
    assert done.returncode == 0, done.stdout + (log.read_text() if log.exists() else "")


def _binaries() -> Path | None:
    """Where initdb and pg_ctl lie: the newest of Debian's, else those on the path."""
    ours = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = ours[-1] if ours else shutil.which("initdb")
    return Path(found).resolve().parent if found else None
