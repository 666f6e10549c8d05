"""The server's graph with a clock around every turn at the database, for `bench_durability`: Serve's `import_path`.

Settings travel to every process that has to do with jobs. These are of a class that lives here, so each such process
imports this module, and importing it is what puts the clock in.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ray.serve import Application
from sqlalchemy import Connection

from deployments import logs
from serve_app import app
from serve_app.settings import Settings
from serve_app.storage.database import Database

ASKED = "database asked"
"""The message of the lines."""

log = logs.get_logger("watched")


class WatchedSettings(Settings):
    """The settings as they are."""


def build(args: WatchedSettings) -> Application:
    """The graph as it is."""
    return app.build(args)


def _timed(kind: str, way_in: Callable[..., AbstractContextManager[Connection]]) -> Callable[..., Any]:
    @contextmanager
    def timed(*args: Any, **options: Any) -> Iterator[Connection]:
        asker = sys._getframe(2).f_code.co_name  # below us: contextlib, then the store's or the outbox's method
        began = time.perf_counter()
        try:
            with way_in(*args, **options) as connection:
                yield connection
        finally:
            log.info(ASKED, extra={"kind": kind, "asker": asker, "seconds": time.perf_counter() - began})

    return timed


for _kind in ("read", "write"):
    setattr(Database, _kind, _timed(_kind, getattr(Database, _kind)))
