"""Checks once, where the app is built, that the models are there. Knows the model store and nothing of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.models.store import resolve

if TYPE_CHECKING:
    from serve_app.settings import Settings


def check_models(settings: Settings) -> None:
    """Check the models before Serve starts replicas, each of which would otherwise fail three times.

    In production only the CPU pool's are checked: its replicas start with the first job that needs them, and the
    machine that builds the app need not have the models of the others.

    Raises:
        ModelLoadError: One is missing; the message names it and the command that fetches it.
    """
    for model in settings.wanted_models if settings.profile == "local" else settings.pool_models:
        resolve(model.name, model.kind, settings.models)
