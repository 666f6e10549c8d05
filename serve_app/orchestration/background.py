"""Tasks that run beside the manager's loop, at most one per kind and key. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from deployments import logs

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logs.get_logger("manager")


class BackgroundTasks:
    """Start tasks, find and cancel them by kind and key, and log those that fail."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], asyncio.Task[Any]] = {}

    def start(self, kind: str, work: Coroutine[Any, Any, object], *, key: str = "") -> None:
        """Run `work` as a task, unless one of this kind and key is still running."""
        if (kind, key) in self._tasks:
            work.close()
            return
        task = self._tasks[kind, key] = asyncio.create_task(work)

        def ended(_: asyncio.Task[object]) -> None:
            del self._tasks[kind, key]
            if not task.cancelled() and (error := task.exception()):
                log.error("%s failed", kind, exc_info=error)

        task.add_done_callback(ended)

    def is_running(self, kind: str, key: str) -> bool:
        """Return whether a task of this kind and key is running."""
        return (kind, key) in self._tasks

    def count(self, kind: str) -> int:
        """Return how many tasks of this kind are running."""
        return sum(each == kind for each, _ in self._tasks)

    def cancel(self, kind: str, key: str) -> None:
        """Cancel the task of this kind and key, if one is running."""
        if task := self._tasks.get((kind, key)):
            task.cancel()

    def cancel_all(self) -> list[asyncio.Task[Any]]:
        """Cancel all tasks; return them for a caller that wants to wait for their ends."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        return tasks
