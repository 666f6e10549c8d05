"""A release whose recogniser's engine cannot start: `import_path: tests.support.broken_engine:build` in a Serve config.

Serve passes `Settings` only where annotations are classes: no `from __future__ import annotations` here.
"""

from typing import Any

from ray.serve import Application

from serve_app import app, testing
from serve_app.settings import Settings

MESSAGE = "the engine cannot start"


def build(args: Settings) -> Application:
    """The application over fake engines, but for the recogniser's, which raises as it is made."""
    whole = app.Transcriber
    app.Transcriber = _broken(whole)
    try:
        return testing.build(args)
    finally:
        app.Transcriber = whole


def _broken(deployment: Any) -> Any:
    class Broken(deployment.func_or_class):  # type: ignore[misc, name-defined]
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError(MESSAGE)

    return deployment.options(func_or_class=Broken)
