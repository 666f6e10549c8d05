"""Counts progress callbacks: in the manager at once, in a job actor until they are reported to the manager.

A job actor's own metrics would be lost with its process, and the database has no count of progress: it is in no
timeline.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from serve_app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Tries = Mapping[tuple[str, str], int]
    """How many tries there were of each outcome (`metrics.PROGRESS_OUTCOMES`) and class of fault (`metrics.FAULTS`)."""

REPORT_EVERY_S = 5.0


def count(outcome: str, fault: str = "none") -> None:
    """Count one try in this process, which has to be one that stays."""
    metrics.PROGRESS_TRIES.inc(outcome=outcome, fault=fault)


def count_all(tries: Tries) -> None:
    """Count the tries that another process reports."""
    for (outcome, fault), number in tries.items():
        metrics.PROGRESS_TRIES.inc(number, outcome=outcome, fault=fault)


class ProgressTally:
    """Collects the tries of a process that ends with its job, and reports them every `REPORT_EVERY_S` at most."""

    def __init__(self, report: Callable[[Tries], None]) -> None:
        """`report` passes the tries on since it was called last. It must not wait."""
        self._report = report
        self._tries: Counter[tuple[str, str]] = Counter()
        self._reported_at = -math.inf

    def add(self, outcome: str, fault: str = "none") -> None:
        """Count one try, and report all that are due."""
        self._tries[outcome, fault] += 1
        if time.monotonic() - self._reported_at >= REPORT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Report what is not reported yet; the job's end does."""
        if self._tries:
            self._report(dict(self._tries))
            self._tries.clear()
            self._reported_at = time.monotonic()
