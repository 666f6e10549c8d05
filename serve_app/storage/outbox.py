"""The outbox: terminal callbacks are rows until the backend has acknowledged them; and receivers that keep failing.

A sender claims a row before it tries, by moving the row's next try beyond the longest time a try may take. So a job
actor and the manager never send the same callback at once, and the claim of a sender that dies runs out.
Knows nothing of HTTP, of what is in a body, or of how long to wait between tries. Blocking: call it from a thread.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import Integer, bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.jobs.job import CallbackExtras, CallbackState, CallbackStatus, DueCallback, Job, Outcome
from serve_app.jobs.states import JobState
from serve_app.storage import timeline
from serve_app.storage.tables import callbacks, has_ended, jobs, receivers, results
from serve_app.storage.timeline import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Connection, RowMapping, Select

    from serve_app.storage.database import Database
    from serve_app.storage.job_rows import EndBody

CLAIM_S = 30.0
"""Longer than one try may take (20 s)."""
PER_RECEIVER = 5
"""Terminal callbacks that one receiver gets from the manager at the same time."""
BREAKER_FAILURES = 5
"""Failures in a row after which a receiver is only probed."""
PROBE_EVERY_S = 30.0
PROGRESS = "#progress"
"""Suffix of an origin: the row that counts the failures of progress callbacks there."""


def _select_due() -> Select[Any]:
    """Return the query of `Outbox.due`, with the parameters `now`, `full` (receivers that get no more) and `limit`."""
    order = (callbacks.c.next_try_at, callbacks.c.id)
    failing = receivers.c.failures >= BREAKER_FAILURES
    now: BindParameter[float] = bindparam("now")
    ranked = (
        select(
            *(callbacks.c[name] for name in ("id", "job_id", "origin", "next_try_at")),
            func.row_number().over(partition_by=callbacks.c.origin, order_by=order).label("rank"),
            case((failing, 1), else_=PER_RECEIVER).label("most"),
        )
        .outerjoin(receivers, receivers.c.origin == callbacks.c.origin)
        .where(
            callbacks.c.state == CallbackState.PENDING,
            callbacks.c.next_try_at <= now,
            callbacks.c.origin.not_in(bindparam("full", expanding=True)),
            or_(receivers.c.origin.is_(None), ~failing, receivers.c.next_probe_at <= now),
        )
        .subquery()
    )
    most = bindparam("limit", type_=Integer)
    return select(ranked).where(ranked.c.rank <= ranked.c.most).order_by(ranked.c.next_try_at).limit(most)


_DUE = _select_due()
"""Made once: the manager asks at each turn."""


class Outbox:
    """The terminal callbacks, and in `breaker` the receivers that keep failing."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._clock = clock
        self.breaker = CircuitBreaker(database, clock=clock)

    def due(self, limit: int, in_flight: Mapping[str, int] = MappingProxyType({})) -> Sequence[tuple[str, str, str]]:
        """Return callbacks that are due, the longest due first: their ids, their jobs' ids and their receivers.

        At most `PER_RECEIVER` of one receiver are tried at the same time, with those `in_flight` (by receiver), and of
        one that keeps failing a single one for each probe. So what is owed to a dead receiver delays no other.
        """
        full = [receiver for receiver, count in in_flight.items() if count >= PER_RECEIVER]
        free = {receiver: PER_RECEIVER - count for receiver, count in in_flight.items()}
        parameters = {"now": self._clock(), "full": full, "limit": limit}
        with self._db.read() as db:
            found = [row for row in db.execute(_DUE, parameters) if row.rank <= free.get(row.origin, limit)]
        return [(row.id, row.job_id, row.origin) for row in found]

    def claim(self, callback_id: str) -> DueCallback | None:
        """Claim a callback for one try of at most `CLAIM_S`; return None where it is not due (any more)."""
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
            if row is None:
                return None
            headers = db.execute(select(jobs.c.callback_headers).where(jobs.c.job_id == row["job_id"])).scalar()
        columns = {name: row[name] for name in DueCallback.__dataclass_fields__ if name in row}
        return DueCallback(**columns, age_s=now - row["due_since"], headers=headers)

    def mark_delivered(self, callback: DueCallback) -> None:
        """Record that the receiver has acknowledged the callback (2xx)."""
        self._settle(callback, EventKind.CALLBACK_DELIVERED, state=CallbackState.DELIVERED, last_error=None)

    def give_up(self, callback: DueCallback, *, error: str) -> None:
        """Record that the callback is not tried again."""
        self._settle(callback, EventKind.CALLBACK_UNDELIVERED, state=CallbackState.UNDELIVERED, last_error=error)

    def schedule_retry(self, callback: DueCallback, *, after_s: float, error: str) -> None:
        """Record a failed try and when the next one is due. Does nothing where the claim has run out."""
        next_try_at = self._clock() + after_s
        self._settle(callback, EventKind.CALLBACK_FAILED, _is_held(callback), next_try_at=next_try_at, last_error=error)

    def postpone(self, callback: DueCallback, until: float = 0.0) -> None:
        """Give a claimed callback back untried; it is due again at `until` (epoch seconds)."""
        self._settle(callback, None, _is_held(callback), next_try_at=until, attempts=callback.attempts - 1)

    def _settle(
        self, callback: DueCallback, kind: EventKind | None, *where: ColumnElement[bool], **values: object
    ) -> None:
        pending = callbacks.c.state == CallbackState.PENDING
        with self._db.write() as db:
            _lock_job(db, callback.job_id)
            settled = db.execute(
                update(callbacks).where(callbacks.c.id == callback.id, pending, *where).values(**values)
            )
            if kind and settled.rowcount:
                error = values["last_error"]
                detail = f"try {callback.attempts}" + (f": {error}" if error else "")
                timeline.record(db, callback.job_id, kind, at=self._clock(), detail=detail)

    def redeliver(self, job_id: str, *, end_body: EndBody | None = None, named: bool = True) -> bool:
        """Make the newest terminal callback of a job due again, with a fresh schedule; False where the job has none.

        Where the speakers have other names than in that callback, a new message takes its place, with the body that
        `end_body` makes. Without `named` no names are told. Without `end_body` it is the same message always.
        """
        now = self._clock()
        with self._db.write() as db:
            _lock_job(db, job_id)
            newest = db.execute(_newest(job_id)).mappings().one_or_none()
            if newest is None:
                return False
            fresh = {"state": CallbackState.PENDING, "attempts": 0, "due_since": now, "next_try_at": now}
            if end_body:
                fresh |= _renamed(db, newest, end_body, named=named)
            db.execute(update(callbacks).where(callbacks.c.id == newest["id"]).values(**fresh))
            timeline.record(db, job_id, EventKind.CALLBACK_RENEWED, at=now)
            return True

    def extras_of_newest(self, job_id: str, sequence: int) -> CallbackExtras | None:
        """Return what the caller adds to callback `sequence`, None where the job has one with a higher number."""
        with self._db.read() as db:
            newest = select(jobs.c.custom_metadata, jobs.c.callback_headers).where(
                jobs.c.job_id == job_id, jobs.c.sequence == sequence
            )
            row = db.execute(newest).one_or_none()
        return row and CallbackExtras(custom_metadata=row.custom_metadata, headers=row.callback_headers)

    def status(self, job_id: str) -> CallbackStatus:
        """Return how far the newest terminal callback of a job is; `NONE` for a job that has not ended."""
        with self._db.read() as db:
            row = db.execute(_newest(job_id)).mappings().one_or_none()
        if row is None:
            return CallbackStatus()
        return CallbackStatus(state=CallbackState(row["state"]), attempts=row["attempts"], last_error=row["last_error"])


def new_message_id() -> str:
    """Return a new `webhook-id`: every try of one callback has the same."""
    return f"msg_{uuid.uuid4().hex}"


def enqueue(db: Connection, job: Job, body: bytes, *, now: float) -> str:
    """Store the terminal callback of a run that has just ended, due at once; return its id."""
    callback_id = new_message_id()
    db.execute(
        insert(callbacks).values(
            id=callback_id,
            job_id=job.job_id,
            url=job.callback_url,
            origin=origin_of(str(job.callback_url)),
            sequence=job.sequence + 1,
            body=body,
            state=CallbackState.PENDING,
            attempts=0,
            due_since=now,
            next_try_at=now,
        )
    )
    return callback_id


def origin_of(url: str) -> str:
    """Return scheme, host and port: the name of a receiver."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _lock_job(db: Connection, job_id: str) -> None:
    """Lock the job's row before its other rows, as every transaction does: else two could wait for each other."""
    db.execute(select(jobs.c.job_id).where(jobs.c.job_id == job_id).with_for_update())


def _newest(job_id: str) -> Select[Any]:
    return (
        select(callbacks)
        .join(jobs, jobs.c.job_id == callbacks.c.job_id)
        .where(callbacks.c.job_id == job_id, has_ended)
        .order_by(callbacks.c.sequence.desc())
        .limit(1)
    )


def _renamed(db: Connection, newest: RowMapping, end_body: EndBody, *, named: bool) -> dict[str, Any]:
    """Return what makes a new message of a job's newest callback; nothing where the names in it are the present ones.

    It takes the old one's place: a try of that one that is under way settles nothing any more.
    """
    job = Job.of(db.execute(select(jobs).where(jobs.c.job_id == newest["job_id"])).mappings().one())
    names = job.speakers if named else None
    if names == newest["speakers"] or job.state is not JobState.COMPLETED:  # a failed run's end tells no names
        return {}
    result = db.execute(select(results.c.body).where(results.c.job_id == job.job_id)).scalar_one()
    db.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(sequence=job.sequence + 1))
    body = end_body(replace(job, speakers=names), Outcome(result=result))
    message = {"id": new_message_id(), "sequence": job.sequence + 1, "body": body, "speakers": names}
    return message | {"last_error": None}


def _is_held(callback: DueCallback) -> ColumnElement[bool]:
    """The claim is still this sender's: no other has claimed the callback since."""
    return callbacks.c.attempts == callback.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The answer to a sender that wants to try a receiver."""

    granted: bool
    retry_at: float = 0.0
    """Where it is not granted: the epoch second from which the next probe may be taken."""


class CircuitBreaker:
    """Receivers that keep failing, by origin, over all senders: one try each 30 s probes one, all others wait.

    Ends and progress are counted apart, so that a backend that refuses progress still gets an end at once.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._db = database
        self._clock = clock

    def acquire(self, origin: str) -> Permit:
        """Ask to send the end of a job. A permit for a failing receiver takes the probe of this half minute."""
        return self._acquire(origin)

    def acquire_for_progress(self, origin: str) -> bool:
        """Ask to send progress. Where ends fail, a probe is granted only if no end has taken it for `PROBE_EVERY_S`."""
        return self._acquire(origin + PROGRESS).granted and self._acquire(origin, unused_s=PROBE_EVERY_S).granted

    def _acquire(self, receiver: str, *, unused_s: float = 0.0) -> Permit:
        """`unused_s`: how long a probe must have been free to be granted."""
        now = self._clock()
        with self._db.read() as db:
            row = db.execute(select(receivers).where(receivers.c.origin == receiver)).mappings().one_or_none()
        if row is None or row["failures"] < BREAKER_FAILURES:
            return Permit(granted=True)
        if row["next_probe_at"] + unused_s > now:
            return Permit(granted=False, retry_at=row["next_probe_at"])
        free = (receivers.c.origin == receiver, receivers.c.next_probe_at + unused_s <= now)
        with self._db.write() as db:
            taken = db.execute(update(receivers).where(*free).values(next_probe_at=now + PROBE_EVERY_S)).rowcount
        return Permit(granted=True) if taken else Permit(granted=False, retry_at=now + PROBE_EVERY_S)

    def record_success(self, origin: str) -> None:
        """Forget the failures of a receiver: it has taken a callback, of whichever kind."""
        either = receivers.c.origin.in_((origin, origin + PROGRESS))
        with self._db.read() as db:
            if db.execute(select(receivers.c.origin).where(either)).first() is None:
                return
        with self._db.write() as db:
            db.execute(delete(receivers).where(either))

    def record_failure(self, origin: str, *, progress: bool = False) -> None:
        """Count a failed try, of a progress callback or of an end."""
        next_probe_at = self._clock() + PROBE_EVERY_S
        first = {"origin": origin + (PROGRESS if progress else ""), "failures": 1, "next_probe_at": next_probe_at}
        again = {"failures": receivers.c.failures + 1, "next_probe_at": next_probe_at}
        with self._db.write() as db:
            upsert = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
            row = upsert(receivers).values(**first)
            db.execute(row.on_conflict_do_update(index_elements=[receivers.c.origin], set_=again))
