"""Finds callbacks that were applied already, or are older than one that was.

Each callback arrives at least once, and a late retry can arrive after a newer callback of its job. `InMemory` is enough
for one process. With several processes, or to survive a restart, store the same two values in the database that has the
jobs, in the transaction of what the handler writes: docs/integration.md has an example.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

Outcome = Literal["applied", "duplicate", "stale"]
Value = TypeVar("Value")


class CallbackMemory(Protocol):
    """Stores which callbacks were applied."""

    def turn(self, job_id: str, *, sequence: int, message_id: str) -> AbstractAsyncContextManager[Outcome]:
        """Yield the outcome of a callback. If it is `applied`, the block handles the callback; else it does nothing.

        `duplicate`: this `message_id` was applied. `stale`: a callback of this job with this `sequence` or a higher one
        was applied. Only one block of a job runs at a time. After an exception in the block the callback counts as not
        applied: the server sends it again.
        """
        ...


class InMemory:
    """Stores, for one process, the newest sequence of each job, and the ids of the newest callbacks of all jobs."""

    def __init__(self, *, jobs: int = 10_000, messages: int = 50_000) -> None:
        self._jobs = jobs
        self._messages = messages
        self._newest: dict[str, int] = {}
        self._seen: dict[str, None] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, job_id: str, *, sequence: int, message_id: str) -> AsyncIterator[Outcome]:
        """See `CallbackMemory`."""
        lock = self._locks.setdefault(job_id, asyncio.Lock())
        async with lock:
            outcome = self._outcome(job_id, sequence, message_id)
            yield outcome
            if outcome == "applied":
                _remember(self._newest, job_id, sequence, most=self._jobs)
                _remember(self._seen, message_id, None, most=self._messages)

    def _outcome(self, job_id: str, sequence: int, message_id: str) -> Outcome:
        if message_id in self._seen:
            return "duplicate"
        newest = self._newest.get(job_id)
        return "applied" if newest is None or sequence > newest else "stale"


def _remember(entries: dict[str, Value], name: str, value: Value, *, most: int) -> None:
    """Add the newest entry, and delete the oldest one if there are more than `most`."""
    entries.pop(name, None)
    entries[name] = value
    if len(entries) > most:
        del entries[next(iter(entries))]
