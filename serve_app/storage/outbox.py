"""The outbox: terminal callbacks are rows until the backend has acknowledged them. Blocking: call it from a thread.

A sender claims a row before it tries, by moving the row's next try beyond the longest time a try may take: so a
driver and the manager never send the same callback at once, and a sender that dies leaves it to the next.
A receiver that keeps failing is noted here too, for all senders: one of them probes it every 30 s, the others wait.
How progress fares is counted by itself: a backend that refuses progress still hears of an end at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.callbacks.payloads import new_message_id
from serve_app.callbacks.retry_schedule import RetrySchedule
from serve_app.jobs.job import CallbackState, CallbackStatus, DueCallback
from serve_app.storage import timeline
from serve_app.storage.tables import callbacks, jobs, receivers
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection, RowMapping, Select

    from serve_app.jobs.job import Job
    from serve_app.storage.database import Database

CLAIM_S = 30.0
"""Longer than one try may take (20 s)."""
BREAKER_FAILURES = 5
"""Failures in a row after which a receiver is only probed."""
PROBE_EVERY_S = 30.0
PROGRESS = "#progress"
"""Behind an origin: the row that counts how progress fares there."""


class Outbox:
    """What is owed to backends."""

    def __init__(
        self,
        database: Database,
        *,
        schedule: RetrySchedule | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self._schedule = schedule or RetrySchedule()
        self._clock = clock

    def due(self, limit: int) -> Sequence[tuple[str, str]]:
        """Callbacks whose time has come, with their jobs' ids, the longest owed first."""
        query = (
            select(callbacks.c.id, callbacks.c.job_id)
            .where(callbacks.c.state == CallbackState.PENDING, callbacks.c.next_try_at <= self._clock())
            .order_by(callbacks.c.next_try_at)
            .limit(limit)
        )
        with self._db.read() as db:
            return [(row[0], row[1]) for row in db.execute(query)]

    def claim(self, callback_id: str) -> DueCallback | None:
        """Take a callback for one try; None where it is not due (any more)."""
        now = self._clock()
        with self._db.write() as db:
            row = (
                db.execute(
                    update(callbacks)
                    .where(
                        callbacks.c.id == callback_id,
                        callbacks.c.state == CallbackState.PENDING,
                        callbacks.c.next_try_at <= now,
                    )
                    .values(next_try_at=now + CLAIM_S, attempts=callbacks.c.attempts + 1)
                    .returning(callbacks)
                )
                .mappings()
                .one_or_none()
            )
        return _due(row) if row else None

    def delivered(self, callback: DueCallback) -> None:
        """A 2xx came."""
        self._settle(callback, EventKind.CALLBACK_DELIVERED, state=CallbackState.DELIVERED, last_error=None)

    def refused(self, callback: DueCallback, *, error: str) -> None:
        """The receiver wants no more of it (410)."""
        self._settle(callback, EventKind.CALLBACK_UNDELIVERED, state=CallbackState.UNDELIVERED, last_error=error)

    def failed(self, callback: DueCallback, *, error: str, retry_after_s: float | None = None) -> None:
        """A try failed: plan the next one, or give up when 72 h have passed. Nothing where the claim has run out."""
        now = self._clock()
        wait = self._schedule.wait_s(
            attempts=callback.attempts, age_s=now - callback.due_since, retry_after_s=retry_after_s
        )
        if wait is None:
            self.refused(callback, error=error)
        else:
            mine = callbacks.c.attempts == callback.attempts
            self._settle(callback, EventKind.CALLBACK_FAILED, mine, next_try_at=now + wait, last_error=error)

    def postpone(self, callback: DueCallback, until: float = 0.0) -> None:
        """Give a claimed callback back untried, to be tried from `until` on."""
        mine = callbacks.c.attempts == callback.attempts
        self._settle(callback, None, mine, next_try_at=until, attempts=callback.attempts - 1)

    def _settle(
        self, callback: DueCallback, kind: EventKind | None, *where: ColumnElement[bool], **values: object
    ) -> None:
        pending = callbacks.c.state == CallbackState.PENDING
        with self._db.write() as db:
            settled = db.execute(
                update(callbacks).where(callbacks.c.id == callback.id, pending, *where).values(**values)
            )
            if kind and settled.rowcount:
                error = values["last_error"]
                detail = f"try {callback.attempts}" + (f": {error}" if error else "")
                timeline.record(db, callback.job_id, kind, at=self._clock(), detail=detail)

    def redeliver(self, job_id: str) -> bool:
        """Start the newest terminal callback of a job over; False where the job has none."""
        now = self._clock()
        with self._db.write() as db:
            newest = db.execute(_newest(job_id)).mappings().one_or_none()
            if newest is None:
                return False
            fresh = {"state": CallbackState.PENDING, "attempts": 0, "due_since": now, "next_try_at": now}
            db.execute(update(callbacks).where(callbacks.c.id == newest["id"]).values(**fresh))
            timeline.record(db, job_id, EventKind.CALLBACK_RENEWED, at=now)
            return True

    def status(self, job_id: str) -> CallbackStatus:
        """How telling the end of a job stands. A job that runs has nothing to tell yet."""
        with self._db.read() as db:
            row = db.execute(_newest(job_id)).mappings().one_or_none()
        if row is None:
            return CallbackStatus()
        return CallbackStatus(state=CallbackState(row["state"]), attempts=row["attempts"], last_error=row["last_error"])

    # Receivers that keep failing

    def may_try(self, origin: str) -> float | None:
        """None where a job's end may be told at `origin` now, else the epoch second from which it may be probed.

        A caller that gets None for a failing receiver has taken this half minute's probe.
        """
        return self._gate(origin)

    def may_tell(self, origin: str, *, job_id: str, sequence: int) -> bool:
        """Whether progress may be told: nothing newer is to be told of the job, its end above all.

        A receiver that fails is left to the ends that are due there; it hears progress only where nobody probes it.
        """
        with self._db.read() as db:
            newest = db.execute(select(jobs.c.sequence).where(jobs.c.job_id == job_id)).scalar()
        if newest != sequence:
            return False
        return self._gate(origin + PROGRESS) is None and self._gate(origin, late_s=PROBE_EVERY_S) is None

    def _gate(self, receiver: str, *, late_s: float = 0.0) -> float | None:
        """`late_s`: only a probe that nobody has taken for so long is taken."""
        now = self._clock()
        with self._db.read() as db:
            row = db.execute(select(receivers).where(receivers.c.origin == receiver)).mappings().one_or_none()
        if row is None or row["failures"] < BREAKER_FAILURES:
            return None
        if row["next_probe_at"] + late_s > now:
            return float(row["next_probe_at"])
        with self._db.write() as db:
            won = db.execute(
                update(receivers)
                .where(and_(receivers.c.origin == receiver, receivers.c.next_probe_at + late_s <= now))
                .values(next_probe_at=now + PROBE_EVERY_S)
            ).rowcount
        return None if won else now + PROBE_EVERY_S

    def note(self, origin: str, *, ok: bool, progress: bool = False) -> None:
        """Remember how a try at `origin` went. One that takes anything is well."""
        both = (origin, origin + PROGRESS)
        if ok:
            with self._db.read() as db:
                known = db.execute(select(receivers.c.origin).where(receivers.c.origin.in_(both))).first()
            if known:
                with self._db.write() as db:
                    db.execute(delete(receivers).where(receivers.c.origin.in_(both)))
            return
        next_probe_at = self._clock() + PROBE_EVERY_S
        with self._db.write() as db:
            first = {"origin": both[progress], "failures": 1, "next_probe_at": next_probe_at}
            again = {"failures": receivers.c.failures + 1, "next_probe_at": next_probe_at}
            upsert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
            row = upsert(receivers).values(**first)
            db.execute(row.on_conflict_do_update(index_elements=[receivers.c.origin], set_=again))


def owe(db: Connection, job: Job, body: bytes, *, now: float) -> str:
    """Put the terminal callback of a run that has just ended into the outbox; its id."""
    callback_id = new_message_id()
    db.execute(
        insert(callbacks).values(
            id=callback_id,
            job_id=job.job_id,
            url=job.callback_url,
            sequence=job.sequence + 1,
            body=body,
            state=CallbackState.PENDING,
            attempts=0,
            due_since=now,
            next_try_at=now,
        )
    )
    return callback_id


def _newest(job_id: str) -> Select[Any]:
    return (
        select(callbacks)
        .join(jobs, jobs.c.job_id == callbacks.c.job_id)
        .where(callbacks.c.job_id == job_id, jobs.c.state.in_(("completed", "failed")))
        .order_by(callbacks.c.sequence.desc())
        .limit(1)
    )


def _due(row: RowMapping) -> DueCallback:
    return DueCallback(**{name: row[name] for name in DueCallback.__dataclass_fields__})
