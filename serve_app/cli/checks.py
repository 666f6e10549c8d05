"""What `ml-server up` looks at before it starts anything: each fault is told at once, in a sentence."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.exposure import ExposedError, check_bind
from serve_app.settings import Settings, in_words

if TYPE_CHECKING:
    from pathlib import Path


class StartError(Exception):
    """The server did not come up; the message says why."""


def check_settings(config: dict[str, Any]) -> Settings:
    """Say at once what is wrong with the settings; the app itself is built far away, in Ray."""
    try:
        return Settings(**config["applications"][0].get("args", {}))
    except ValidationError as invalid:
        raise StartError(in_words(invalid)) from invalid


def check_host(config: dict[str, Any], settings: Settings) -> None:
    """Say at once that the server would be open to everybody; the app and the ingress look again (`ingress.py`)."""
    try:
        check_bind(config["http_options"]["host"], settings.auth)
    except ExposedError as error:
        raise StartError(str(error)) from error


def check_devices(settings: Settings) -> None:
    """Say at once which stages are meant for a GPU on a machine without one; Serve would try for minutes."""
    stages = {name: getattr(settings, name) for name in ("transcriber", "aligner", "diarizer", "emotion")}
    on_gpu = [f"{name}.device" for name, stage in stages.items() if stage.device.startswith("cuda")]
    if not on_gpu:
        return
    import ctranslate2  # asks the CUDA driver, and loads in a tenth of torch's time

    try:
        found = ctranslate2.get_cuda_device_count()
    except RuntimeError:  # a driver that does not answer
        found = 0
    if not found:
        raise StartError(f"{' and '.join(on_gpu)} is cuda, but there is no CUDA device on this machine")


def ensure_models(path: Path) -> None:
    """See to it that the config's models are here: the profile `local` fetches what is not, before Ray starts.

    Production, and `models.offline`, say at once which are missing or damaged, all of them, and what fetches them.
    Replicas look again, and would say the same of one model each, a minute later.
    """
    from deployments.errors import ModelLoadError
    from serve_app.cli import models

    try:
        models.ensure_models(models.open_shelf(path))
    except ModelLoadError as error:
        raise StartError(str(error)) from error


def check_port(config: dict[str, Any]) -> None:
    """Another server's answer must not be taken for ours."""
    port = config.get("http_options", {}).get("port", 8000)
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        raise StartError(f"port {port} is in use; choose another with --port")


def free_port_or_any(port: int) -> int:
    """`port` where nobody listens on it, else 0: any. Metrics at another place are no reason not to start."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray does: scrapes of before may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def check_database(settings: Settings) -> None:
    """Bring the tables to their newest form before anybody uses them. A database that is away may still come."""
    from sqlalchemy.exc import SQLAlchemyError

    from serve_app.storage.migrations import DatabaseTooNewError
    from serve_app.storage.opening import open_database

    try:
        open_database(settings).close()
    except DatabaseTooNewError as error:
        raise StartError(str(error)) from error
    except SQLAlchemyError:
        return
