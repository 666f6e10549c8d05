"""Serves the console: static files that ask the API as any client does. Knows nothing of jobs."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from fastapi import FastAPI, Response

PATH = "/console"
FILES = files("serve_app") / "console"
HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: a new release shows at once
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; media-src blob: http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
}
"""Scripts from here only, none inside a page, and no text that becomes one; media from where its operator says."""


class _Console(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        """The file, or that it has not changed, with the headers of a page."""
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def is_file(path: str) -> bool:
    """Whether a request for `path` is answered here."""
    return path == PATH or path.startswith(PATH + "/")


def mount(app: FastAPI) -> None:
    """Answer at `PATH`."""

    @app.get(PATH, include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH.removeprefix('/')}/")

    app.mount(PATH, _Console(directory=str(FILES), html=True))
