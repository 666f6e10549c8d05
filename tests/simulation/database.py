"""SQLite in memory-backed files, that fails as databases do: away, locked, full, slow, or silent about a commit.

The faults are raised by the driver, below SQLAlchemy; the product's own code runs above it.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from serve_app.jobs.states import ACTOR_PREFIX
from serve_app.storage import database
from serve_app.storage.database import BUSY_TIMEOUT_S, Database
from tests.simulation.loop import current

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tests.simulation.loop import Process

LARGE_BYTES = 450
"""A row of more has no room on a disk that is nearly full."""


class DatabaseFaults:
    """What is wrong with the database at the moment."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.away = False
        self.locked = False
        """Another program holds the lock: each call waits as long as it may, and fails."""
        self.nearly_full = False
        """Small rows can still be written, large ones cannot."""
        self.slow_s = 0.0
        self.slow_for_actors_s = 0.0
        """For job actors alone: they may be on another machine than the manager."""
        self.fails = 0.0
        """The share of statements that fail."""
        self.silent = 0.0
        """The share of commits after which the connection breaks, before they are confirmed."""

    def thread_s(self) -> tuple[float, float]:
        """The time of one call of the database, before and after it is done."""
        if self.locked:
            return BUSY_TIMEOUT_S, 0.0
        slow_s = self.slow_for_actors_s if current().name.startswith(ACTOR_PREFIX) else self.slow_s
        before_s = 0.0005 + (0.002 + slow_s) * self._random.random()
        return before_s, 0.002 if self._random.random() < 0.1 else 0.0

    def check(self, process: Process) -> None:
        if self.away or process.database_cut:
            raise sqlite3.OperationalError("unable to open database file")
        if self.locked:
            raise sqlite3.OperationalError("database is locked")
        if self.fails and self._random.random() < self.fails:
            raise sqlite3.OperationalError("disk I/O error")

    def check_room(self, parameters: Any) -> None:
        if self.nearly_full and any(
            isinstance(each, bytes | memoryview) and len(each) > LARGE_BYTES for each in parameters
        ):
            raise sqlite3.OperationalError("database or disk is full")


FAULTS: list[DatabaseFaults] = []
"""Those of the present run."""


class _Cursor(sqlite3.Cursor):
    def execute(self, statement: str, parameters: Any = ()) -> Any:
        faults = FAULTS[-1]
        faults.check(current())
        if faults.nearly_full:
            faults.check_room(parameters)
        return super().execute(statement, parameters)


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def commit(self) -> None:
        faults = FAULTS[-1]
        if self.in_transaction:
            faults.check(current())
        super().commit()
        if faults.silent and faults._random.random() < faults.silent:
            raise sqlite3.OperationalError("the connection broke")


_ENGINES: dict[Any, Any] = {}


def install() -> None:
    """Have the product's databases made of these connections.

    All processes share the engines, so that each statement is compiled once.
    """
    real = database.create_engine

    def create_engine(url: Any, *, connect_args: dict[str, Any], **options: Any) -> Any:
        kind = str(url), options.get("isolation_level")
        if kind not in _ENGINES:
            _ENGINES[kind] = real(url, connect_args={**connect_args, "factory": _Connection}, **options)
        return _ENGINES[kind]

    database.create_engine = create_engine
    database._line = lambda _path: nullcontext  # each transaction of SQLite's runs in one piece anyway


def prepared(folder: Path, template: Path) -> str:
    """Put a database with all tables into `folder`, in place of the one before; return its URL."""
    for engine in _ENGINES.values():
        engine.dispose()
        engine.pool.dispatch.checkin.clear()  # each process of the run before added a listener
    path = folder / "ml-server.db"
    for rest in folder.glob("ml-server.db*"):
        rest.unlink()
    shutil.copyfile(template, path)
    return f"sqlite:///{path}"


def make_template(folder: Path, random: Random) -> Path:
    """Make the tables once for all runs."""
    FAULTS.append(DatabaseFaults(random))
    path = folder / "template.db"
    made = Database(f"sqlite:///{path}")
    made.create()
    made.forget()
    made.close()
    FAULTS.clear()
    return path
