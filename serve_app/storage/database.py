"""Opens the database: SQLite (WAL, durable commits) by default, PostgreSQL by URL. Knows nothing of jobs."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import TimeoutError as WaitedTooLongError

from serve_app.storage.migrations import is_newest, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry

    from serve_app.settings import Settings

BUSY_TIMEOUT_S = 4
"""Longest wait for a lock or a connection. A request has five seconds in all; callers with more time try again."""
GONE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""When the connection to a PostgreSQL server that vanished is given up; the system's own defaults take hours."""
IDLE_TRANSACTION_S = 10
"""PostgreSQL ends a transaction that is idle for so long, so that a process that hangs in one stops no other."""
READ_ONLY = "25006"
"""PostgreSQL's code for a write to a server, or in a transaction, that only reads."""
LINE_POLL_S = 0.002
"""Between tries to get the writers' lock. SQLite's own waiters sleep up to 0.1 s and overtake each other."""
_ADMISSION_LOCK = 7_201_984
"""Key of the advisory lock that serialises `admission` writers on PostgreSQL; on SQLite all writers are serialised."""


def open_database(settings: Settings) -> Database:
    """Return the database that the settings name, with its tables in their newest form."""
    settings.prepare()
    database = Database(settings.database_url.get_secret_value())
    database.create()
    return database


class Database:
    """A pool of connections with two ways in: `write` (one transaction, serialised on SQLite) and `read`."""

    def __init__(self, url: str) -> None:
        parsed = _with_driver(make_url(url))
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        # an error's text would hold presigned URLs
        options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY_TIMEOUT_S}
        writing: dict[str, Any] = {}
        if self.is_sqlite:
            options["connect_args"] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        else:
            options["pool_pre_ping"] = True
            limits = {"connect_timeout": max(1, BUSY_TIMEOUT_S // len(_hosts(parsed))), **GONE}
            options["connect_args"] = {name: limit for name, limit in limits.items() if name not in parsed.query}
            writing["isolation_level"] = "READ COMMITTED"  # who waited for the lock must see what others committed
        self._closed = False
        self._engine: Engine = create_engine(parsed, **options, **writing)
        self._reader: Engine = create_engine(parsed, isolation_level="AUTOCOMMIT", **options)
        self._turn = _line(f"{parsed.database}.lock") if self.is_sqlite else nullcontext
        for engine in (self._engine, self._reader):
            event.listen(engine, "connect", _prepare_sqlite if self.is_sqlite else _prepare_postgresql)
            event.listen(engine, "handle_error", _forget_values)
            event.listen(engine, "handle_error", _leave_broken_connection)
            event.listen(engine, "checkin", self._close_returned)
        if self.is_sqlite:
            event.listen(self._engine, "begin", _begin_immediate)

    def create(self) -> None:
        """Bring the tables to their newest form, where they do not have it. Raises `DatabaseTooNewError`.

        Waits for the writers' lock even to look: SQLite's first connection changes the file's journal mode, and refuses
        any other at that moment without a wait.
        """
        with self._turn(), self._reader.connect() as connection:
            if is_newest(connection):
                return
        with self.write(admission=True) as connection:
            migrate(connection)

    @contextmanager
    def write(self, *, admission: bool = False) -> Iterator[Connection]:
        """One transaction, committed durably at the end. Raises `SQLAlchemyError` after `BUSY_TIMEOUT_S` of waiting.

        `admission`: only one such transaction at a time; for those that count the queue or change several jobs.
        On SQLite each write is alone, over all processes, by a lock file.
        """
        with self._turn(), self._engine.begin() as connection:
            if admission and not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADMISSION_LOCK})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection whose statements each see the newest committed state."""
        with self._reader.connect() as connection:
            yield connection

    def forget(self) -> None:
        """Empty SQLite's log after a deletion: what was deleted would stay in it while connections are open.

        Waits for readers up to `BUSY_TIMEOUT_S`; where they take longer, a later call empties it.
        """
        if self.is_sqlite:
            with self._turn(), self._reader.connect() as connection:
                connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def close(self) -> None:
        """Close all connections; those in use when they come back."""
        self._closed = True
        self._engine.dispose()
        self._reader.dispose()

    def _close_returned(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        """`dispose` forgets the connections that are in use: they would stay open until they are collected."""
        if self._closed:
            record.invalidate()


def _with_driver(url: URL) -> URL:
    """Take psycopg 3 for `postgresql://` and `postgres://`, as operators write them."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url


def _hosts(url: URL) -> Sequence[str]:
    """Return the servers that a PostgreSQL URL names; each of them is given its part of the wait for a connection."""
    named = url.query.get("host", "")
    return named.split(",") if isinstance(named, str) else named


def _line(path: str) -> Callable[[], AbstractContextManager[None]]:
    """Return a lock for the writers of all processes; one that dies frees it at once."""
    lock = FileLock(path, BUSY_TIMEOUT_S, poll_interval=LINE_POLL_S)

    @contextmanager
    def turn() -> Iterator[None]:
        try:
            lock.acquire()
        except OSError as late:  # a timeout, or no room for the lock's file
            raise WaitedTooLongError("the database is busy") from late
        try:
            yield
        finally:
            lock.release()

    return turn


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own implicit BEGIN would be a deferred one
    # what is deleted or shortened, a URL's signature above all, is overwritten: by default only in some builds
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """Bounded waits, and a commit that has reached the disk where the server's default would not wait for it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('lock_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false),"
            " set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)",
            (f"{round(BUSY_TIMEOUT_S * 1000)}ms", f"{round(IDLE_TRANSACTION_S * 1000)}ms"),
        )
    connection.commit()


def _forget_values(context: ExceptionContext) -> None:
    """PostgreSQL's DETAIL repeats the row that broke a rule, presigned URL and all: keep the first line only."""
    error, shown = context.original_exception, context.sqlalchemy_exception
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    if primary and shown is not None:
        error.args = (primary,)
        shown.args = (f"({type(error).__name__}) {primary}",)


def _leave_broken_connection(context: ExceptionContext) -> None:
    """Have the pool connect anew where a connection may stay broken.

    After a failover a PostgreSQL server may be a standby, which takes no writes. A connection of SQLite's that had an
    error of the disk can fail for ever, with room again, too.
    """
    error = context.original_exception
    of_the_disk = str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_IOERR")
    if of_the_disk or getattr(error, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
