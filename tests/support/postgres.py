"""A PostgreSQL server of the tests' own: made in a temporary folder, reached by a Unix socket, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.cli.child_process import free_port
from tests.support.needs import need
from tests.support.process import until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN = Path("/usr/lib/postgresql")
USER = "postgres"
"""The database's superuser; on a machine where we are root also who runs the server, which refuses root."""
START_S = 60
FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=200")
"""Nothing here has to survive the machine."""
NO_TCP = "listen_addresses="
"""The socket lies in the server's own folder."""
HOST = "127.0.0.1"

LOCALE = ("--encoding=UTF8", "--locale=C.UTF-8")


class Postgres:
    """A server that runs; every `database` is fresh."""

    def __init__(self, folder: Path, *settings: str, port: int = 5432) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._port = port
        self._settings = (*FAST, *settings, f"port={port}", f"unix_socket_directories={folder}")

    def url(self, database: str) -> str:
        """As an operator writes it."""
        return f"postgresql://{USER}@/{database}?host={self._folder}&port={self._port}"

    def initialise(self) -> None:
        """Make the files of a new server."""
        self._run("initdb", "--pgdata", self._data, "--username", USER, "--auth=trust", "--no-sync", *LOCALE)

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in self._settings)
        self._control("start", "--log", self._folder / "log", "--options", options)

    def stop(self) -> None:
        self._control("stop", "--mode=immediate")

    def restart(self, mode: str) -> None:
        """End all connections and start again; with `immediate`, as after a crash."""
        self._control("restart", f"--mode={mode}", "--log", self._folder / "log")

    def kill(self) -> None:
        """End all its processes at once, as the end of its machine does."""
        server = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for pid in (server, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def database(self, **defaults: str) -> Iterator[str]:
        """The URL of an empty database with these default settings; dropped at the end, whoever is still connected."""
        name = f"test_{uuid.uuid4().hex}"
        settings = (f"ALTER DATABASE {name} SET {setting} = '{value}'" for setting, value in defaults.items())
        self._execute(f"CREATE DATABASE {name}", *settings)
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """One database ends all connections and takes no new ones: to its clients, a server that is down."""
        name = _name(url)
        self._execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        try:
            self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
            yield
        finally:
            self._execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    def set_default(self, url: str, setting: str, value: str) -> None:
        """Change a setting for all connections to a database that begin from now on."""
        self._execute(f"ALTER DATABASE {_name(url)} SET {setting} = '{value}'")

    def _execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url(USER), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def _control(self, command: str, *options: object) -> None:
        self._run("pg_ctl", "--pgdata", self._data, "--wait", "--timeout", START_S, *options, command)

    def _run(self, program: str, *arguments: object) -> None:
        binaries = _binaries()
        assert binaries is not None, missing()
        _run(self._folder, binaries / program, *arguments)


class Pair:
    """A primary and its synchronous standby, which clients reach by one URL with both hosts."""

    def __init__(self, folder: Path) -> None:
        self._ports = free_port(), free_port()
        self._folders = [folder / name for name in ("primary", "standby")]
        both = (f"listen_addresses={HOST}", "synchronous_commit=off")  # a default that would cost durability
        self.primary = Postgres(self._folders[0], *both, "synchronous_standby_names=walreceiver", port=self._ports[0])
        soon = "wal_retrieve_retry_interval=100ms"
        self.standby = Postgres(self._folders[1], *both, soon, port=self._ports[1])

    def start(self) -> None:
        for folder in self._folders:
            folder.mkdir()
            _own(folder)
        self.primary.initialise()
        self.primary.start()
        source = ("--host", HOST, "--port", self._ports[0], "--username", USER)
        data = ("--pgdata", self._folders[1] / "data", "--checkpoint=fast", "--no-sync")
        self.standby._run("pg_basebackup", *source, *data, "--write-recovery-conf")
        self.standby.start()

    def url(self, database: str) -> str:
        """Both servers, of which the one that takes writes is meant."""
        ports = ",".join(map(str, self._ports))
        return f"postgresql://{USER}@/{database}?host={HOST},{HOST}&port={ports}&target_session_attrs=read-write"

    def separate(self) -> None:
        """Nothing that the primary writes reaches the standby any more."""
        self._follow("")

    def join(self) -> None:
        """The standby gets what it has missed, and all that follows."""
        self._follow(f"host={HOST} port={self._ports[0]} user={USER}")

    def _follow(self, primary: str) -> None:
        self.standby._execute(f"ALTER SYSTEM SET primary_conninfo = '{primary}'")
        self.standby._execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """The standby takes writes."""
        self.standby._control("promote")


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
def running_postgres(*settings: str) -> Iterator[Postgres]:
    """A server for the time of the context; its `settings` go before those of tests, which cost durability."""
    with _folder() as folder:
        server = Postgres(folder, NO_TCP, *settings)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_pair() -> Iterator[Pair]:
    """Two servers for the time of the context, either of which may be killed in it."""
    with _folder() as folder:
        pair = Pair(folder)
        try:
            pair.start()
            yield pair
        finally:
            for server in (pair.standby, pair.primary):
                with suppress(OSError, IndexError):  # killed before, or never started
                    server.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    try:
        _own(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name(url: str) -> str:
    return url.rpartition("@/")[2].partition("?")[0]


def _own(folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)


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
