"""Serves the page of the OpenAPI document: Swagger UI, all of it from this server. Knows no route.

FastAPI's own page loads script and styles from a CDN, and stays blank without internet. Here they are the files that
fastapi-offline carries, so the browser may be told to ask nobody else.
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
"""Relative, as all that the page asks for: it may lie behind a proxy, under a prefix."""


def mount(app: FastAPI) -> None:
    """Answer at `PATH`."""
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
    """Scripts of this server, and the one inside `page`, which starts it, by its digest."""
    own = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in SCRIPT.findall(page)
    )
    return (
        f"default-src 'none'; script-src 'self' {own}; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
