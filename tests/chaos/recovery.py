"""How long jobs stood still after a fault: from the blow to the next new progress or end. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.backend import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.chaos.history import Fault, History, Seen

DRIVER = "driver"
"""A fault of a driver hits one job, all others hit every job that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The faults of one kind on one kind of process."""

    kind: str
    target: str
    faults: int
    jobs: int
    """That ran at the time, over all faults, and were seen to go on."""
    median_s: float | None
    longest_s: float | None


def recoveries(history: History) -> list[Recovery]:
    """A line per kind and target, in the order of their names."""
    looks: defaultdict[str, list[Seen]] = defaultdict(list)
    for seen in history.seen:
        if seen.run is not None:
            looks[seen.job_id].append(seen)
    faults: defaultdict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in history.faults:
        faults[fault.kind, fault.target].append(fault)
    lines = []
    for (kind, target), group in sorted(faults.items()):
        took_s = [seconds for fault in group for seconds in _resumed_s(fault, looks.values())]
        lines.append(
            Recovery(
                kind=kind,
                target=target,
                faults=len(group),
                jobs=len(took_s),
                median_s=statistics.median(took_s) if took_s else None,
                longest_s=max(took_s, default=None),
            )
        )
    return lines


def _resumed_s(fault: Fault, jobs: Iterable[Sequence[Seen]]) -> list[float]:
    """Seconds, for each job that was hit. A driver's is the job whose next attempt begins first."""
    stood = [found for looks in jobs if (found := _next(fault.at, looks))]
    if fault.target == DRIVER:
        tried = [each for each in stood if each.tried_at is not None]
        stood = sorted(tried, key=lambda each: each.tried_at or 0.0)[:1]
    return [each.further_at - fault.at for each in stood]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Next:
    """What was seen of a job after a moment."""

    further_at: float
    """Further than it was, or ended."""
    tried_at: float | None
    """In its next attempt."""


def _next(at: float, looks: Sequence[Seen]) -> _Next | None:
    """Of a job that ran `at`; None where it did not, or was never seen to go on."""
    before = [seen for seen in looks if seen.at <= at]
    if not before or before[-1].state != "running":
        return None
    stood = before[-1]
    later = [seen for seen in looks if seen.at > at and seen.run == stood.run]
    further = (seen.at for seen in later if seen.progress > stood.progress or seen.state in ENDED)
    tried = (seen.at for seen in later if (seen.attempt or 0) > (stood.attempt or 0))
    again = next(further, None)
    return None if again is None else _Next(further_at=again, tried_at=next(tried, None))
