"""Checks of `ml-server up` before it starts anything: each fault ends the start with one sentence."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from deployments.replica import compute_priority
from serve_app.exposure import ExposedError, check_bind
from serve_app.settings import Settings, in_words

if TYPE_CHECKING:
    from pathlib import Path


class StartError(click.ClickException):
    """The server did not start; the message says why."""

    def format_message(self) -> str:
        """Return what the command prints."""
        return f"the server did not start: {self.message}"


def check_settings(config: dict[str, Any]) -> Settings:
    """Return the settings of a Serve config. Raises `StartError` with what is wrong with them."""
    try:
        return Settings(**config["applications"][0].get("args", {}))
    except ValidationError as invalid:
        raise StartError(in_words(invalid)) from invalid


def check_priority() -> None:
    """Raise `StartError` for a priority that does not exist: no replica would start."""
    try:
        compute_priority()
    except ValueError as error:
        raise StartError(str(error)) from error


def check_host(config: dict[str, Any], settings: Settings) -> None:
    """Raise `StartError` if the server would be open to everybody; the app and the ingress check again."""
    try:
        check_bind(config["http_options"]["host"], settings.auth)
    except ExposedError as error:
        raise StartError(str(error)) from error


def check_devices(settings: Settings) -> None:
    """Raise `StartError` if stages need a GPU and there is none; Serve would try for minutes."""
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
    """Fetch the config's missing models before Ray starts, with the profile `local`.

    Raises:
        StartError: In production, or with `models.offline`: names all models that are missing or damaged, and the
            command that fetches them. Replicas check again, and would report one model each, a minute later.
    """
    from deployments.errors import ModelLoadError
    from serve_app.cli import models

    try:
        models.ensure_models(models.open_inventory(path))
    except ModelLoadError as error:
        raise StartError(str(error)) from error


def check_port(config: dict[str, Any]) -> None:
    """Raise `StartError` if the port is taken: another server's answer must not be mistaken for ours."""
    port = config.get("http_options", {}).get("port", 8000)
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        raise StartError(f"port {port} is in use; choose another with --port")


def free_port_or_any(port: int) -> int:
    """Return `port` if it is free, else 0 (any): a taken metrics port does not stop the start."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray does: earlier connections may linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def check_database(settings: Settings) -> None:
    """Migrate the tables before anything uses them. A database that does not answer is no fault: it may come later."""
    from sqlalchemy.exc import SQLAlchemyError

    from serve_app.storage.database import open_database
    from serve_app.storage.migrations import DatabaseTooNewError

    try:
        open_database(settings).close()
    except DatabaseTooNewError as error:
        raise StartError(str(error)) from error
    except SQLAlchemyError:
        return
