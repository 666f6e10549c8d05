"""The deployment that answers HTTP. Knows how Serve exposes it, and nothing of how jobs are run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from deployments import logs
from serve_app.api import proxy_guard
from serve_app.api.app import create_api
from serve_app.api.service import JobService
from serve_app.exposure import check_bind, check_forwarding, check_token
from serve_app.orchestration import placement
from serve_app.orchestration.manager_client import ManagerClient
from serve_app.orchestration.opening import open_stores
from serve_app.pipeline.stage_client import StageHandles
from serve_app.storage.api_keys import KeyStore
from serve_app.storage.database import open_database
from serve_app.storage.server_state import note_start

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serve_app.settings import Settings

log = logs.get_logger("ingress")


def check_exposure(settings: Settings) -> None:
    """Check that Serve's proxies are open only to those whom the settings let in. Raises ExposedError if not.

    The address that they listen on is no argument of the app; Serve's controller knows it, once Serve runs.
    """
    if ray.is_initialized():
        check_token(settings, os.environ)
    check_forwarding(os.environ)
    check_bind(_listening_on(), settings.auth)


def _listening_on() -> str | None:
    """Return the address of Serve's proxies; None if there are none, or if Serve does not run yet."""
    if not ray.is_initialized():
        return None
    try:
        controller: Any = ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return None
    host: str | None = ray.get(controller.get_http_config.remote()).host
    return host


class _Ingress:
    """The HTTP API in a replica of Serve."""

    def __init__(self, settings: Settings, **stages: Any) -> None:
        logs.configure()
        placement.check_reach(settings.database_url.get_secret_value())  # again: nodes may have joined since the build
        if os.environ.get(proxy_guard.VARIABLE) not in proxy_guard.IMPORT_PATHS:
            log.warning("%s is not set: Serve's proxies read bodies of any size", proxy_guard.VARIABLE)
        check_exposure(settings)  # again: `serve run` builds the app before there is a proxy
        self._settings = settings
        database = open_database(settings)
        self._manager = ManagerClient(settings, StageHandles(**stages), note_start(database))
        self._manager.start()
        stores = open_stores(settings, database)
        self._keys = KeyStore(database)
        self._service = JobService(settings, stores.jobs, stores.outbox, self._manager)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self._settings, self._service, self._keys)

    def __repr__(self) -> str:
        return "Ingress"


Ingress = serve.deployment(name="Ingress")(serve.ingress()(_Ingress))
