"""The callbacks that the manager sends: heartbeats of jobs that wait, and ends that are due.

The job's own actor sends its progress and makes the first try of its end. Knows nothing of how a callback is sent
(`serve_app/callbacks/sender.py`) or when one is due (`serve_app/storage/outbox.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve_app.callbacks import payloads
from serve_app.jobs.progress import Progress
from serve_app.storage.outbox import new_message_id

if TYPE_CHECKING:
    from serve_app.callbacks.sender import Sender
    from serve_app.jobs.job import Job
    from serve_app.orchestration.background import BackgroundTasks
    from serve_app.settings import Settings
    from serve_app.storage.stores import Stores

DELIVERIES = 20
"""Terminal callbacks that are tried at the same time."""


class CallbackDelivery:
    """Send what is due; a heartbeat gives way to whatever its job sends next."""

    def __init__(self, settings: Settings, stores: Stores, sender: Sender, tasks: BackgroundTasks) -> None:
        self._settings = settings
        self._stores = stores
        self._sender = sender
        self._tasks = tasks

    async def send_due(self) -> None:
        """Start a task for each heartbeat and each terminal callback whose time has come."""
        for job in await asyncio.to_thread(self._stores.queue.take_due_heartbeats, since_s=self._settings.heartbeat_s):
            self._tasks.start("heartbeat", self._send_heartbeat(job), key=job.job_id)
        for callback_id, job_id in await asyncio.to_thread(self._stores.outbox.due, DELIVERIES):
            self.stop_heartbeat(job_id)
            self._tasks.start("delivery", self._sender.deliver(callback_id), key=callback_id)

    def stop_heartbeat(self, job_id: str) -> None:
        """Cancel a heartbeat in flight, so that it cannot arrive after the job's next callback."""
        self._tasks.cancel("heartbeat", job_id)

    async def _send_heartbeat(self, job: Job) -> None:
        now = Progress(percent=job.progress, stage=job.stage)
        body = payloads.progress(job.job_id, now, locale=self._settings.locale)
        await self._sender.send_progress(
            job.job_id, str(job.callback_url), body, message_id=new_message_id(), sequence=job.sequence
        )
