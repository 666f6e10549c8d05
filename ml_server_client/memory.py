"""Which callbacks count. They come at least once, and a late retry can arrive after a newer callback of its job.

`InMemory` is enough for one process. With several processes, or to outlive a restart, keep the same two facts in the
database that holds the jobs, and in the transaction of what the handler writes: docs/integration.md has one.
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
    """What was applied already."""

    def turn(self, job_id: str, *, sequence: int, message_id: str) -> AbstractAsyncContextManager[Outcome]:
        """Enter with what is to become of a callback; it is handled inside where that is `applied`.

        `duplicate`: this `message_id` was applied. `stale`: one of this job with this `sequence` or a higher one was.
        One turn of a job at a time. A turn that ends with an exception has not happened: the server sends again.
        """
        ...


class InMemory:
    """For one process: the newest sequence of each job, and the ids of the newest callbacks of all."""

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
    """Put it in as the newest entry; the oldest goes where there are too many."""
    entries.pop(name, None)
    entries[name] = value
    if len(entries) > most:
        del entries[next(iter(entries))]
