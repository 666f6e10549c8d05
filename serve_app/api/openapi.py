"""Completes the OpenAPI document: every status of every route, with an example of each refusal.

Knows nothing of what the routes do. `write_openapi.py` writes the committed copy.
"""

from __future__ import annotations

from collections import defaultdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from serve_app.api import errors, schemas
from serve_app.callbacks.payloads import dump
from serve_app.exports.formats import MEDIA_TYPES, export
from serve_app.exports.options import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI

    from serve_app.settings import Settings

Responses = dict[int | str, dict[str, Any]]

EVERYWHERE: tuple[type[errors.ApiError], ...] = (
    errors.UnauthorizedError,
    errors.ClientNotAllowedError,
    errors.HostNotAllowedError,
    errors.MethodNotAllowedError,
    errors.RequestTimeoutError,
    errors.RequestTooLargeError,
    errors.RateLimitedError,
    errors.HeadersTooLargeError,
    errors.InternalError,
    errors.UnavailableError,
)
SUBMITTING = (
    errors.InvalidRequestError,
    errors.CallbackNotAllowedError,
    errors.VideoUrlNotAllowedError,
    errors.JobConflictError,
    errors.QueueFullError,
)
LISTING = (errors.InvalidRequestError, errors.JobNotFoundError)
OF_A_JOB = (errors.InvalidRequestError, errors.JobNotFoundError, errors.NotFoundError)
EXAMPLES = {
    errors.InvalidRequestError: "job_id is required",
    errors.JobConflictError: errors.JobConflictError.default,
}
EXAMPLE_RESULT = {
    "text": "안녕하세요 반갑습니다",
    "language": "ko",
    "duration": 1.5,
    "metadata": {},
    "segments": [
        {
            "start_time": 0.2,
            "end_time": 1.4,
            "speaker": {"speaker_id": "SPEAKER_00"},
            "text": "안녕하세요 반갑습니다",
            "words": [
                {"word": "안녕하세요", "start": 0.2, "end": 0.8},
                {"word": "반갑습니다", "start": 0.9, "end": 1.4},
            ],
        }
    ],
}
RETRY_AFTER = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
HEADERS = {
    401: {"WWW-Authenticate": {"description": "The kind of key that is wanted", "schema": {"const": "Bearer"}}},
    429: {"Retry-After": RETRY_AFTER},
    503: {"Retry-After": RETRY_AFTER},
}


def refusals(*classes: type[errors.ApiError]) -> Responses:
    """Return the responses of a route that refuses with `classes`, and with what every route may refuse with."""
    by_status: dict[int, list[type[errors.ApiError]]] = defaultdict(list)
    for refusal in (*classes, *EVERYWHERE):
        by_status[refusal.status].append(refusal)
    return {status: _response(status, by_status[status]) for status in sorted(by_status)}


def changes() -> Responses:
    """Return the responses of the stream of changes."""
    example = "event: open\ndata: {}\n\nevent: job\ndata: {…}\n\n"
    description = "`open` once, `job` for each change with a `JobLine` as its data, and comments in between"
    return {200: {"description": description, "content": {"text/event-stream": {"example": example}}}, **refusals()}


def _response(status: int, classes: Iterable[type[errors.ApiError]]) -> dict[str, Any]:
    examples = {}
    for refusal in classes:
        job_id = schemas.A_JOB if refusal in (*SUBMITTING, errors.JobNotFoundError) else None
        value = errors.body(refusal.code, EXAMPLES.get(refusal, refusal.default), job_id)
        examples[refusal.code] = {"summary": (refusal.__doc__ or "").strip(), "value": value}
    return {
        "model": schemas.ErrorResponse,
        "description": ", ".join(examples),
        "content": {"application/json": {"examples": examples}},
        **({"headers": HEADERS[status]} if status in HEADERS else {}),
    }


def exported() -> dict[str, Any]:
    """Return the response of an export: each media type, with an example of each format."""
    content: dict[str, Any] = {}
    for name, media_type in MEDIA_TYPES.items():
        text = export(dump(EXAMPLE_RESULT), ExportOptions(format=name), job_id=schemas.A_JOB)
        is_json = media_type == "application/json"
        media = content.setdefault(media_type, {"schema": {"type": "object" if is_json else "string"}, "examples": {}})
        media["examples"][name] = {"value": EXAMPLE_RESULT if is_json else text.decode()}
    headers = {"Content-Disposition": {"description": "`attachment`, with a file name", "schema": {"type": "string"}}}
    return {"description": "The result as a file", "content": content, "headers": headers}


def _put_null_back(responses: dict[str, Any]) -> None:
    """Put `"job_id": null` back into examples: FastAPI removes null everywhere."""
    for response in responses.values():
        for example in response["content"].get("application/json", {}).get("examples", {}).values():
            if "error" in example["value"]:
                example["value"]["error"].setdefault("job_id", None)


def _refuse_in_json(responses: dict[str, Any]) -> None:
    """Give refusals the media type JSON: FastAPI gives them that of the route's own response."""
    for status, response in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            json = response["content"]["application/json"]
            for other in response["content"].keys() - {"application/json"}:
                json.update(response["content"].pop(other))


def complete(app: FastAPI, settings: Settings) -> None:
    """Remove from the app's document what no route does, and add the API key if one is required."""
    make = app.openapi
    keys = settings.auth.mode == "keys"

    def document() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        content = make()
        for path, operations in content["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own; ours are 400s
                _refuse_in_json(operation["responses"])
                _put_null_back(operation["responses"])
                if keys:
                    operation["security"] = [] if path == "/health" else [{"key": []}]
        for name in ("HTTPValidationError", "ValidationError"):
            content["components"]["schemas"].pop(name, None)
        if keys:
            content["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return content

    setattr(app, "openapi", document)  # noqa: B010 - FastAPI's documented way; mypy sees a method there
