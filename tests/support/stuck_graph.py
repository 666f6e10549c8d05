"""The local graph with a recogniser that very loud speech gets stuck, and loud speech slow: Serve's `import_path`.

No `from __future__ import annotations`: Serve wants the builder's annotation to be a class.
"""

import ctypes
import time
from typing import Any

import numpy as np
from ray.serve import Application

from deployments.transcriber import deployment
from serve_app import app
from serve_app.settings import Settings

QUIET, SLOW, STUCK = 6_000, 18_000, 32_000
"""Peaks of speech that is heard as usual, that takes `SLOW_S` a chunk, and on which native code does not come back."""
BETWEEN = 25_000
SLOW_S = 3.0


class StuckTranscriber(deployment.Transcriber.func_or_class):  # type: ignore[misc, name-defined]
    """The recogniser, its engine in a trap."""

    def __init__(self, *args: Any, **options: Any) -> None:
        create = deployment.create
        deployment.create = lambda *given: Trap(create(*given))
        super().__init__(*args, **options)


class Trap:
    """An engine around an engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def transcribe(self, chunks: Any) -> Any:
        peak = max((int(np.abs(chunk.audio.astype(np.int32)).max()) for chunk in chunks), default=0)
        if peak > BETWEEN:
            ctypes.CDLL(None).sleep(1000)  # without Python's lock, as torch and CTranslate2 compute
        elif peak > QUIET * 2:
            time.sleep(SLOW_S)
        return self._engine.transcribe(chunks)

    def detect(self, chunks: Any, *, brief: bool = False) -> Any:
        return self._engine.detect(chunks, brief=brief)


def build(args: Settings) -> Application:
    """The graph."""
    app.Transcriber = deployment.Transcriber.options(func_or_class=StuckTranscriber)
    return app.build(args)
