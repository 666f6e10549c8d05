"""Serves the console: static files that ask the API as any client does, and the sentences. Knows nothing of jobs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from serve_app.sentences import SENTENCES

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/console"
FILES = files("serve_app") / "console"
HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: a new release shows at once
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; media-src blob: http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
}
"""Scripts from here only, none inside a page, and no text that becomes one; media from where its operator says."""


SCRIPT = f"export const SENTENCES = {json.dumps(SENTENCES, ensure_ascii=False)};\n"
"""The warnings' sentences for the page, in both languages."""


class _Console(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        """The file, or that it has not changed, with the headers of a page."""
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def answers(path: str) -> bool:
    """Whether a request for `path` is answered here."""
    return path in {"/", PATH} or path.startswith(PATH + "/")


def mount(app: FastAPI) -> None:
    """Answer at `PATH`; the server's root leads there."""

    @app.get("/", include_in_schema=False)
    @app.get(PATH, include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH.removeprefix('/')}/")

    @app.get(f"{PATH}/sentences.js", include_in_schema=False)
    async def sentences() -> Response:
        return Response(SCRIPT, media_type="text/javascript", headers=HEADERS)

    app.mount(PATH, _Console(directory=str(FILES), html=True))
