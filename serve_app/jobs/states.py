"""The states of a job, and the only ways from one to another.

    POST ──▶ QUEUED ──▶ RUNNING ──▶ COMPLETED
               │           └──────▶ FAILED ◀─┐
               └─────────(cancelled)─────────┘
             FAILED ──▶ QUEUED   the same job POSTed again: a new run

Knows nothing of the database.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands; the value is what the database holds."""

    QUEUED = "queued"
    """Stored and answered; waits for one of the slots."""
    RUNNING = "running"
    """Has a slot; a driver works on it or will be started for it."""
    COMPLETED = "completed"
    """The result is stored. Final."""
    FAILED = "failed"
    """Ended with an error code. Final for this run; a new POST starts another."""

    @property
    def ended(self) -> bool:
        """No more work will happen in this run."""
        return self in {JobState.COMPLETED, JobState.FAILED}

    @property
    def wire(self) -> str:
        """The contract's word."""
        return {JobState.QUEUED: "accepted", JobState.RUNNING: "processing"}.get(self, self.value)

    @classmethod
    def from_wire(cls, word: str) -> JobState | None:
        """The state that the contract's word names, None where there is no such word."""
        return next((state for state in cls if word in {state.wire, state.value}), None)


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),
}


class IllegalTransitionError(Exception):
    """Somebody tried an arrow that is not in `TRANSITIONS`."""


def check(before: JobState, after: JobState) -> None:
    """Raise `IllegalTransitionError` unless `before` may become `after`."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransitionError(f"{before} → {after}")
