"""Serves the pages: the console, and Swagger UI for the OpenAPI document. All their files come from this server.

FastAPI's own Swagger page loads script and styles from a CDN and stays blank without internet. Here they come from the
package fastapi-offline, so the content security policies allow this server only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from serve_app.warning_sentences import SENTENCES

if TYPE_CHECKING:
    from fastapi import FastAPI

DOCS = "/docs"
DOCS_FILES = files("fastapi_offline") / "static"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
CONSOLE = "/console"
CONSOLE_FILES = files("serve_app") / "console"
CONSOLE_HEADERS = {
    "Cache-Control": "no-cache",  # stored by browsers, and revalidated by ETag: a new release shows at once
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; media-src blob: http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
}
"""Only scripts of this server, none inline, no HTML from strings; media from any URL that the operator enters."""
WARNINGS_SCRIPT = f"export const SENTENCES = {json.dumps(SENTENCES, ensure_ascii=False)};\n"
"""A module with the warnings' sentences in both languages."""


class _Console(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the file, or 304, with the headers of the console."""
        response = super().file_response(*args, **options)
        response.headers.update(CONSOLE_HEADERS)
        return response


def is_console(path: str) -> bool:
    """Return whether the console answers requests for `path`."""
    return path in {"/", CONSOLE} or path.startswith(CONSOLE + "/")


def mount_console(app: FastAPI) -> None:
    """Serve the console at `CONSOLE`, and redirect the server's root to it."""

    @app.get("/", include_in_schema=False)
    @app.get(CONSOLE, include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{CONSOLE.removeprefix('/')}/")

    @app.get(f"{CONSOLE}/sentences.js", include_in_schema=False)
    async def sentences() -> Response:
        return Response(WARNINGS_SCRIPT, media_type="text/javascript", headers=CONSOLE_HEADERS)

    app.mount(CONSOLE, _Console(directory=str(CONSOLE_FILES), html=True))


def mount_docs(app: FastAPI) -> None:
    """Serve Swagger UI at `DOCS`. All URLs of the page are relative: a proxy may serve it under a prefix."""
    here = DOCS.removeprefix("/")
    page = bytes(
        get_swagger_ui_html(
            openapi_url=str(app.openapi_url).removeprefix("/"),
            title=app.title,
            swagger_js_url=f"{here}/swagger-ui-bundle.js",
            swagger_css_url=f"{here}/swagger-ui.css",
            swagger_favicon_url=f"{here}/favicon.png",
        ).body
    )
    headers = {"Content-Security-Policy": _docs_policy(page)}

    @app.get(DOCS, include_in_schema=False)
    async def docs() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    app.mount(DOCS, StaticFiles(directory=str(DOCS_FILES)))


def _docs_policy(page: bytes) -> str:
    """Return a policy that allows scripts of this server, and the inline script of `page` by its digest."""
    scripts = INLINE_SCRIPT.findall(page)
    own = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {own}; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
