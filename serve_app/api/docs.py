"""Serves Swagger UI for the OpenAPI document, with all files from this server. Knows no route.

FastAPI's own page loads script and styles from a CDN and stays blank without internet. Here they come from the package
fastapi-offline, so the content security policy allows this server only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/docs"
FILES = files("fastapi_offline") / "static"
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
HERE = PATH.removeprefix("/")
"""Relative, like all URLs of the page: a proxy may serve it under a prefix."""


def mount(app: FastAPI) -> None:
    """Serve Swagger UI at `PATH`."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url=str(app.openapi_url).removeprefix("/"),
            title=app.title,
            swagger_js_url=f"{HERE}/swagger-ui-bundle.js",
            swagger_css_url=f"{HERE}/swagger-ui.css",
            swagger_favicon_url=f"{HERE}/favicon.png",
        ).body
    )
    headers = {"Content-Security-Policy": _policy(page)}

    @app.get(PATH, include_in_schema=False)
    async def docs() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    app.mount(PATH, StaticFiles(directory=str(FILES)))


def _policy(page: bytes) -> str:
    """Return a policy that allows scripts of this server, and the inline script of `page` by its digest."""
    own = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in SCRIPT.findall(page)
    )
    return (
        f"default-src 'none'; script-src 'self' {own}; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
