"""Whoever looks at the jobs meanwhile."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from serve_app.jobs.states import JobState
from serve_app.storage.database import Database
from serve_app.storage.tables import callbacks, jobs, results
from tests.chaos.history import Row, Seen
from tests.support.backend import ENDED

if TYPE_CHECKING:
    from tests.chaos.server import MortalServer

LOOK_EVERY_S = 0.15
STATUS_EVERY_S = 1.0


class Watcher:
    """Looks at all rows several times a second, and through the API at one job a second; writes changes down."""

    def __init__(self, server: MortalServer, *, seed: int) -> None:
        self._server = server
        self._database = Database(server.database_url)
        self._chance = random.Random(seed)
        self.seen: list[Seen] = []
        self._newest: dict[str, Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def looking(self) -> bool:
        """Whether the records go on."""
        return self._thread.is_alive()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._database.close()

    def _watch(self) -> None:
        asked_at = 0.0
        while not self._stop.wait(LOOK_EVERY_S):
            with suppress(SQLAlchemyError):
                self._look()
            if time.monotonic() - asked_at > STATUS_EVERY_S and self._newest:
                asked_at = time.monotonic()
                with suppress(httpx.HTTPError, ValueError):
                    self._ask(self._chance.choice(list(self._newest)))

    def _look(self) -> None:
        columns = [jobs.c[name] for name in ("job_id", "state", "progress", "run", "attempt", "sequence")]
        with self._database.read() as db:
            at, rows = time.monotonic(), db.execute(select(*columns)).mappings().all()
        for row in rows:
            new = Seen(at=at, **row)
            old = self._newest.get(new.job_id)
            if old is None or (old.state, old.progress, old.run, old.attempt, old.sequence) != (
                *(new.state, new.progress, new.run, new.attempt, new.sequence),
            ):
                self._newest[new.job_id] = new
                self.seen.append(new)

    def _ask(self, job_id: str) -> None:
        at, answer = time.monotonic(), self._server.status(job_id)
        if answer.status_code == httpx.codes.OK:
            view = answer.json()
            state = JobState.from_wire(view["status"])
            self.seen.append(Seen(job_id=job_id, at=at, state=str(state), progress=view["progress"]))

    @property
    def open(self) -> list[str]:
        """Jobs that have not ended, as of the last look."""
        return [job_id for job_id, seen in list(self._newest.items()) if seen.state not in ENDED]

    def rows(self) -> list[Row]:
        """All that the database holds now."""
        with self._database.read() as db:
            told: dict[str, list[tuple[str, str]]] = {}
            for callback_id, job_id, state in db.execute(select(callbacks.c.id, callbacks.c.job_id, callbacks.c.state)):
                told.setdefault(job_id, []).append((callback_id, state))
            columns = [jobs.c[name] for name in ("job_id", "state", "run", "attempt", "error_code")]
            query = select(*columns, results.c.body.label("result")).outerjoin(results)
            return [Row(**row, callbacks=told.get(row["job_id"], [])) for row in db.execute(query).mappings()]
