"""The states of a job, and the transitions between them; no other is allowed.

    POST ──▶ QUEUED ──▶ RUNNING ──▶ COMPLETED
               │           └──────▶ FAILED ◀─┐
               └─────────(cancelled)─────────┘
             FAILED ──▶ QUEUED   the same job POSTed again, or a rerun: a new run
          COMPLETED ──▶ QUEUED   a rerun, with other options

Knows nothing of the database.
"""

from __future__ import annotations

from enum import StrEnum

ACTOR_PREFIX = "job:"
"""How the names of job actors begin."""


class JobState(StrEnum):
    """The state of a job; the value is what the database holds."""

    QUEUED = "queued"
    """Stored, and the POST answered; waits for a slot."""
    RUNNING = "running"
    """Has a slot; a job actor works on it, or is about to be started."""
    COMPLETED = "completed"
    """The result is stored. Final for this run; a rerun starts another."""
    FAILED = "failed"
    """Ended with an error code. Final for this run; a new POST, or a rerun, starts another."""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self in {JobState.COMPLETED, JobState.FAILED}

    @property
    def wire(self) -> str:
        """The word of the HTTP contract for it."""
        return {JobState.QUEUED: "accepted", JobState.RUNNING: "processing"}.get(self, self.value)

    @classmethod
    def from_wire(cls, word: str) -> JobState | None:
        """Return the state that a word of the contract means, None for an unknown word."""
        return next((state for state in cls if word in {state.wire, state.value}), None)


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.COMPLETED, JobState.FAILED}),
    JobState.COMPLETED: frozenset({JobState.QUEUED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
}


class IllegalTransitionError(Exception):
    """A transition that is not in `TRANSITIONS` was tried."""


def check(before: JobState, after: JobState) -> None:
    """Raise `IllegalTransitionError` unless `before` may become `after`."""
    if after not in TRANSITIONS[before]:
        raise IllegalTransitionError(f"{before} → {after}")
