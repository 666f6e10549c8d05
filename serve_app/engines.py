"""Whether the models are here, looked at once, where the app is built. Knows the model store and nothing of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.models.store import resolve

if TYPE_CHECKING:
    from serve_app.settings import Settings


def check_models(settings: Settings) -> None:
    """See to it that models are here before Serve starts replicas, each of which it would let fail three times.

    In production that is the CPU pool's alone: its replicas start with the first job that wants them, and the machine
    that builds the app need not have the others' models.

    Raises:
        ModelLoadError: One is not; the sentence names it and the command that heals it.
    """
    for model in settings.wanted_models if settings.profile == "local" else settings.pool_models:
        resolve(model.name, model.kind, settings.models)
