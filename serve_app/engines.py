"""Which engines a server runs, decided once, before any replica starts: all others see nothing but the outcome.

Knows the model store and nothing of Ray.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from deployments import logs
from deployments.aligner.config import AlignerConfig
from deployments.diarizer.config import DiarizerConfig
from deployments.emotion.config import EmotionConfig
from deployments.models.choice import choose
from deployments.models.store import resolve
from deployments.transcriber.config import TranscriberConfig

if TYPE_CHECKING:
    from serve_app.settings import Settings

EMBEDDED_STAGES = {
    "transcriber": TranscriberConfig(),
    "aligner": AlignerConfig(),
    "diarizer": DiarizerConfig(),
    "emotion": EmotionConfig(),
    "cpu_pool": None,
}
"""The stages' own defaults are the engines that bring their models along."""

log = logs.get_logger("engines")


def decided(settings: Settings) -> Settings:
    """The settings without `engine: auto`: with the engines that they name, or with the embedded ones and a warning.

    What counts is which models are on this machine. No hub is asked, whatever `models.offline` says: a start shall
    neither wait for a network nor fetch a gigabyte that nobody asked for (`ml-server models fetch` does that).
    """
    if settings.engine == "named":
        return settings
    here = settings.model_store.model_copy(update={"offline": True})
    choice = choose(settings.wanted_models, partial(resolve, config=here))
    if choice.warning is None:
        log.info(choice.reason)
        return settings.model_copy(update={"engine": "named"})
    log.warning(choice.reason)
    warnings = (*settings.warnings, choice.warning)
    return settings.model_copy(update={**EMBEDDED_STAGES, "engine": "named", "warnings": warnings})


def check_models(settings: Settings) -> None:
    """See to it that models are here before Serve starts replicas, each of which it would let fail three times.

    In production that is the CPU pool's alone: its replicas start with the first job that wants them, and the machine
    that builds the app need not have the others' models.

    Raises:
        ModelLoadError: One is not; the sentence names it and the command that heals it.
    """
    for model in settings.wanted_models if settings.profile == "local" else settings.pool_models:
        resolve(model.name, model.kind, settings.model_store)
