"""What a run of the checker writes down: four records that know nothing of each other, and what was done meanwhile.

Times are seconds of one monotonic clock. Knows nothing of how the records are made or judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.backend import Received
    from tests.support.customer import Posted


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a job while it lived: a row of the table, or a status answer (which tells no numbers)."""

    job_id: str
    at: float
    state: str
    """The word of the database: queued, running, completed, failed."""
    progress: int
    run: int | None = None
    attempt: int | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the database holds of a job at the end."""

    job_id: str
    state: str
    run: int
    attempt: int
    error_code: str | None
    result: bytes | None
    callbacks: Sequence[tuple[str, str]]
    """Id and state of each terminal callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What the nemesis did, to what, from when to when."""

    kind: str
    target: str
    at: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All records of one run."""

    posted: Sequence[Posted]
    seen: Sequence[Seen]
    """In order of time."""
    rows: Sequence[Row]
    got: Sequence[Received]
    """In order of time."""
    faults: Sequence[Fault]
    references: Mapping[str, dict[str, Any]]
    """By video: the result of an undisturbed run."""
    attempts: int = 3
    """Attempts that a run has."""
