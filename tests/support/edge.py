"""The HTTP edge over a real store, with nobody behind it: a job is worked on by the test, or by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.storage.api_keys import KeyStore

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serve_app.orchestration.opening import Stores
    from serve_app.settings import Settings
    from serve_app.storage.database import Database
    from serve_app.storage.outbox import Outbox


class NobodyBehind:
    """The rest of the server, standing still."""

    def wake(self) -> None:
        """Wake nobody."""

    def discard(self, job_id: str) -> None:
        """Have no files."""

    def is_managed(self) -> bool:
        """By a manager of this release."""
        return True

    def failing(self) -> list[str]:
        """Nothing is broken."""
        return []


def edge(settings: Settings, database: Database, store: Stores, outbox: Outbox | None = None) -> FastAPI:
    """The app as an ingress replica makes it."""
    service = JobService(settings, store.jobs, outbox or store.outbox, NobodyBehind())
    return create_api(settings, service, KeyStore(database))
