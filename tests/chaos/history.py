"""What a run of the checker writes down: four records that know nothing of each other, and what was done meanwhile.

Times are seconds of one monotonic clock. Knows nothing of how the records are made or judged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENDED = frozenset({"completed", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A job that the client asked for. `answered_at` is None where no 200 ever came: then nothing is promised."""

    job_id: str
    video: str
    """Which reference its result has to equal."""
    answered_at: float | None
    cancelled: bool = False
    """The client asked for its end."""


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
class Got:
    """One POST that the backend received, processed or not."""

    at: float
    message_id: str
    sequence: int
    raw: bytes
    acknowledged: bool
    """A 2xx was sent back whole."""

    @property
    def body(self) -> dict[str, Any]:
        """The content."""
        content: dict[str, Any] = json.loads(self.raw)
        return content

    @property
    def job_id(self) -> str:
        """The job that it is about."""
        return str(self.body["job_id"])

    @property
    def final(self) -> bool:
        """Whether it tells the job's end."""
        return self.body["status"] in ENDED


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
    got: Sequence[Got]
    """In order of time."""
    faults: Sequence[Fault]
    references: Mapping[str, dict[str, Any]]
    """By video: the result of an undisturbed run."""
    attempts: int = 3
    """Attempts that a run has."""
