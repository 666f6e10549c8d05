"""Judges a history: what was lost, done twice, or moved as no job may move. Pure; knows nothing of servers.

A violation is anything that the contract rules out. Allowed, and only counted: a callback that comes again with the
same id and the same bytes, and an old progress of a process that was stopped in the middle of sending it.
"""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from deployments.errors import CancelledJobError, InternalJobError
from serve_app.jobs.states import TRANSITIONS, JobState
from tests.support.backend import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.chaos.history import History, Row, Seen
    from tests.support.backend import Received
    from tests.support.customer import Posted

VOLATILE = ("processing_time", "stages")
"""Of a result's metadata: what may differ between two runs of the same video."""
CANCELLED, WORN_OUT = CancelledJobError.code, InternalJobError.code
STOP = "stop"
STOP_SLACK_S = 10.0
"""How long after it goes on a stopped process may still bring out what it had begun to send."""
SETTLED = frozenset({"delivered", "undelivered"})
"""States of a callback with which nobody is at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that must never happen."""

    kind: str
    """lost, doubled, illegal, late, changed, unequal or failed."""
    job_id: str
    detail: str


KINDS = ("lost", "doubled", "illegal", "late", "changed", "unequal", "failed")


def violations(history: History) -> list[Violation]:
    """All of them, by job."""
    rows = {row.job_id: row for row in history.rows}
    seen, got = _by_job(history.seen), _by_job(history.got)
    found = [*_changed(history.got)]
    for posted in history.posted:
        row = rows.get(posted.job_id)
        told = got.get(posted.job_id, [])
        found += _lost(posted, row, told)
        found += _illegal(seen.get(posted.job_id, []))
        found += _late(told, history)
        found += _unordered(told, history)
        if row is not None:
            found += _doubled(row, told)
            found += _failed(posted, row, history.attempts)
            found += _unequal(posted, row, history)
    return found


def duplicates(got: Iterable[Received]) -> int:
    """Posts that brought what had come before, the same bytes under the same id."""
    return sum(times - 1 for times in Counter((each.message_id, each.raw) for each in got).values())


def _by_job(records: Iterable[Any]) -> dict[str, list[Any]]:
    grouped: defaultdict[str, list[Any]] = defaultdict(list)
    for record in records:
        grouped[record.job_id].append(record)
    return grouped


def _lost(posted: Posted, row: Row | None, told: Sequence[Received]) -> Iterator[Violation]:
    """Answered means stored, a stored job ends, and its end is told."""
    if row is None:
        if posted.answered_at is not None:
            yield Violation(kind="lost", job_id=posted.job_id, detail="answered, but there is no row")
        return
    if row.state not in ENDED:
        yield Violation(kind="lost", job_id=posted.job_id, detail=f"has not ended: {row.state}")
        return
    if not row.callbacks:
        yield Violation(kind="lost", job_id=posted.job_id, detail="ended, but no callback is owed")
    heard = {each.message_id for each in told if each.acknowledged}
    for callback_id, state in row.callbacks:
        if state not in SETTLED:
            yield Violation(kind="lost", job_id=posted.job_id, detail=f"callback {state} at the end")
        if state == "delivered" and callback_id not in heard:
            yield Violation(kind="lost", job_id=posted.job_id, detail="delivered, says the row, but never acknowledged")


def _doubled(row: Row, told: Sequence[Received]) -> Iterator[Violation]:
    """One end per run: in the table, at the backend, and both the same."""
    finals = {each.message_id: each.body for each in told if each.ended}
    ids = finals.keys() | {callback_id for callback_id, _ in row.callbacks}
    if len(ids) > row.run:
        yield Violation(kind="doubled", job_id=row.job_id, detail=f"{len(ids)} ends in {row.run} run(s)")
    results = [body["result"] for body in finals.values() if body["status"] == "completed"]
    if row.result is not None and any(result != json.loads(row.result) for result in results):
        yield Violation(kind="doubled", job_id=row.job_id, detail="the result told is not the one stored")
    if results and row.result is None and row.state in ENDED and len(finals) >= row.run:
        yield Violation(kind="doubled", job_id=row.job_id, detail="told as completed, stored as failed")


def _illegal(seen: Sequence[Seen]) -> Iterator[Violation]:
    """Every look follows from the one before it, whatever was missed between."""
    rows = [each for each in seen if each.run is not None]
    for before, after in pairwise(rows):
        if wrong := _wrong_step(before, after):
            yield Violation(kind="illegal", job_id=after.job_id, detail=wrong)
    for before, after in pairwise(seen):
        of_status = before.run is None or after.run is None  # tells no run: after a failed one may come another
        if of_status and before.state == JobState.COMPLETED and after.state != JobState.COMPLETED:
            yield Violation(kind="illegal", job_id=after.job_id, detail=f"status: completed, then {after.state}")


def _wrong_step(before: Seen, after: Seen) -> str | None:
    states = f"{before.state} → {after.state}"
    if after.run != before.run:
        if not (after.run or 0) > (before.run or 0) or before.state == JobState.COMPLETED:
            return f"run {before.run} → {after.run}, {states}"
        return None
    if after.state != before.state and JobState(after.state) not in _reachable(JobState(before.state)):
        return states
    for name in ("attempt", "progress", "sequence"):
        if getattr(after, name) < getattr(before, name):
            return f"{name} fell from {getattr(before, name)} to {getattr(after, name)}"
    if before.state in ENDED and (after.sequence, after.attempt) != (before.sequence, before.attempt):
        return f"changed after its end ({before.state})"
    return None


def _reachable(state: JobState) -> set[JobState]:
    """What may follow in the same run, steps that were missed included. A new run is told by its number."""
    after = TRANSITIONS[state] - {JobState.QUEUED}
    return set(after).union(*map(_reachable, after))


def _late(told: Sequence[Received], history: History) -> Iterator[Violation]:
    """Nothing comes after an acknowledged end, but for what a stopped process had already begun to send."""
    ended: Received | None = None
    for each in told:
        if ended is not None and not each.ended and (each.sequence > ended.sequence or not _stopped(each.at, history)):
            yield Violation(kind="late", job_id=each.job_id, detail=f"progress {each.body['progress']} after the end")
        if each.ended and (each.acknowledged if ended is None else each.sequence > ended.sequence):
            ended = each


def _stopped(at: float, history: History) -> bool:
    return any(fault.at <= at <= fault.until + STOP_SLACK_S for fault in history.faults if fault.kind == STOP)


def _unordered(told: Sequence[Received], history: History) -> Iterator[Violation]:
    """A number belongs to one callback, and callbacks come first in the order of their numbers."""
    owner: dict[int, str] = {}
    newest: Received | None = None
    for each in told:
        if owner.setdefault(each.sequence, each.message_id) != each.message_id:
            yield Violation(kind="illegal", job_id=each.job_id, detail=f"two callbacks have number {each.sequence}")
        if newest is None or each.sequence > newest.sequence:
            newest = each
        elif _first(each, told) and not _stopped(each.at, history):
            detail = f"number {each.sequence} came after {newest.sequence}"
            yield Violation(kind="illegal", job_id=each.job_id, detail=detail)


def _first(each: Received, told: Sequence[Received]) -> bool:
    return next(other for other in told if other.message_id == each.message_id) is each


def _changed(got: Iterable[Received]) -> Iterator[Violation]:
    """The same id means the same bytes."""
    first: dict[str, Received] = {}
    for each in got:
        if first.setdefault(each.message_id, each).raw != each.raw:
            yield Violation(kind="changed", job_id=each.job_id, detail=f"other bytes under {each.message_id}")


def _failed(posted: Posted, row: Row, attempts: int) -> Iterator[Violation]:
    """A good video's job fails only when it was cancelled, or when its attempts were all taken from it."""
    if row.state != JobState.FAILED:
        return
    allowed = (posted.cancelled and row.error_code == CANCELLED) or (
        row.error_code == WORN_OUT and row.attempt >= attempts
    )
    if not allowed:
        detail = f"{row.error_code} in attempt {row.attempt}"
        yield Violation(kind="failed", job_id=row.job_id, detail=detail)


def _unequal(posted: Posted, row: Row, history: History) -> Iterator[Violation]:
    """A result does not tell what happened to its job."""
    if row.state != JobState.COMPLETED:
        return
    if row.result is None:
        yield Violation(kind="lost", job_id=row.job_id, detail="completed without a result")
        return
    mine, reference = comparable(json.loads(row.result)), comparable(history.references[posted.video])
    if mine != reference:
        yield Violation(kind="unequal", job_id=row.job_id, detail=difference(reference, mine))


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what may differ between two runs of the same video."""
    result = copy.deepcopy(result)
    for name in VOLATILE:
        result["metadata"].pop(name, None)
    return result


def difference(reference: dict[str, Any], mine: dict[str, Any]) -> str:
    """The first field that differs, for a human."""
    for name, value in reference.items():
        if mine.get(name) != value:
            return f"{name}: {str(value)[:80]} became {str(mine.get(name))[:80]}"
    return f"new fields: {sorted(mine.keys() - reference.keys())}"
