"""Serves the console: static files, which use the API as any client does, and the warnings' sentences."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from serve_app.warning_sentences import SENTENCES

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/console"
FILES = files("serve_app") / "console"
HEADERS = {
    "Cache-Control": "no-cache",  # stored by browsers, and revalidated by ETag: a new release shows at once
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; media-src blob: http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
}
"""Only scripts of this server, none inline, no HTML from strings; media from any URL that the operator enters."""

SCRIPT = f"export const SENTENCES = {json.dumps(SENTENCES, ensure_ascii=False)};\n"
"""A module with the warnings' sentences in both languages."""


class _Console(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the file, or 304, with the headers of the console."""
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def answers(path: str) -> bool:
    """Return whether the console answers requests for `path`."""
    return path in {"/", PATH} or path.startswith(PATH + "/")


def mount(app: FastAPI) -> None:
    """Serve the console at `PATH`, and redirect the server's root to it."""

    @app.get("/", include_in_schema=False)
    @app.get(PATH, include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH.removeprefix('/')}/")

    @app.get(f"{PATH}/sentences.js", include_in_schema=False)
    async def sentences() -> Response:
        return Response(SCRIPT, media_type="text/javascript", headers=HEADERS)

    app.mount(PATH, _Console(directory=str(FILES), html=True))
