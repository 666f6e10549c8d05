"""The old name of `serve_app.api.proxy_guard`, which operators have in `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`."""

from __future__ import annotations

from deployments import logs
from serve_app.api.proxy_guard import middlewares

__all__ = ["middlewares"]

logs.get_logger("api").warning(
    "serve_app.api.doorkeeper is now serve_app.api.proxy_guard: set"
    " RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.api.proxy_guard.middlewares"
)
