"""The errors that a request can be refused with, their common body, and how they are sent. Knows no routes, no Ray.

    ApiError
    ├── InvalidRequestError      400 INVALID_REQUEST
    ├── CallbackNotAllowedError  400 CALLBACK_NOT_ALLOWED
    ├── VideoUrlNotAllowedError  400 VIDEO_URL_NOT_ALLOWED
    ├── UnauthorizedError        401 UNAUTHORIZED
    ├── ClientNotAllowedError    403 CLIENT_NOT_ALLOWED
    ├── HostNotAllowedError      403 HOST_NOT_ALLOWED
    ├── JobNotFoundError         404 JOB_NOT_FOUND
    ├── NotFoundError            404 NOT_FOUND
    ├── MethodNotAllowedError    405 METHOD_NOT_ALLOWED
    ├── RequestTimeoutError      408 REQUEST_TIMEOUT
    ├── JobConflictError         409 JOB_CONFLICT
    ├── RequestTooLargeError     413 REQUEST_TOO_LARGE
    ├── RateLimitedError         429 RATE_LIMITED, Retry-After
    ├── HeadersTooLargeError     431 HEADERS_TOO_LARGE
    ├── InternalError            500 INTERNAL_ERROR
    ├── QueueFullError           503 INSUFFICIENT_RESOURCES, Retry-After
    └── UnavailableError         503 SERVICE_UNAVAILABLE, Retry-After

Errors of the framework and of Serve's proxy get the same body.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from deployments.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import Message, Scope, Send

SAFE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Browsers then guess no media type, store no response, send no referrer, and render nothing as a page or frame."""


class ApiError(RequestError):
    """Base: a refusal with status and code. Its message is public."""

    status: ClassVar[int]
    code: ClassVar[str]
    default: ClassVar[str] = ""

    def __init__(self, message: str = "", *, job_id: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message or self.default)
        self.job_id = job_id
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class InvalidRequestError(ApiError):
    """Malformed JSON, a missing or wrong field, an unknown language."""

    status, code = 400, "INVALID_REQUEST"


class CallbackNotAllowedError(ApiError):
    """`fastapi_base_url` is not on the whitelist."""

    status, code = 400, "CALLBACK_NOT_ALLOWED"
    default = "fastapi_base_url is not on this server's callback whitelist"


class VideoUrlNotAllowedError(ApiError):
    """The video's scheme or host is refused."""

    status, code = 400, "VIDEO_URL_NOT_ALLOWED"
    default = "video_url is not allowed: its scheme, host or port is refused by this server"


class UnauthorizedError(ApiError):
    """No key, or a wrong one."""

    status, code = 401, "UNAUTHORIZED"
    default = "A valid API key is required: Authorization: Bearer <key>"

    @property
    def headers(self) -> dict[str, str]:
        """Return the header that names the kind of key (RFC 6750)."""
        return {"WWW-Authenticate": "Bearer"}


class ClientNotAllowedError(ApiError):
    """The client's address is in none of the networks that the settings name."""

    status, code = 403, "CLIENT_NOT_ALLOWED"
    default = "Clients from this address may not use this server"


class HostNotAllowedError(ApiError):
    """The `Host` header is a name that the settings do not give this server."""

    status, code = 403, "HOST_NOT_ALLOWED"
    default = "This server is not known by this host name: it is not in auth.hosts"


class JobNotFoundError(ApiError):
    """No such job, or deleted."""

    status, code = 404, "JOB_NOT_FOUND"
    default = "There is no job with this job_id"


class NotFoundError(ApiError):
    """No such route."""

    status, code = 404, "NOT_FOUND"
    default = "Not Found"


class MethodNotAllowedError(ApiError):
    """A route, but not with this method."""

    status, code = 405, "METHOD_NOT_ALLOWED"
    default = "Method Not Allowed"


class RequestTimeoutError(ApiError):
    """The headers or the body did not arrive in time, or the response took too long."""

    status, code = 408, "REQUEST_TIMEOUT"
    default = "The request took too long"


class JobConflictError(ApiError):
    """The id is known with other content, or the job's state does not allow what was asked."""

    status, code = 409, "JOB_CONFLICT"
    default = "This job_id is already known with different content"


class RequestTooLargeError(ApiError):
    """The body is over its limit."""

    status, code = 413, "REQUEST_TOO_LARGE"
    default = "The request body is too large"


class RateLimitedError(ApiError):
    """Too many requests of one client."""

    status, code = 429, "RATE_LIMITED"
    default = "Too many requests"


class HeadersTooLargeError(ApiError):
    """The request's line and headers, or what surrounds its chunks, is over its limit."""

    status, code = 431, "HEADERS_TOO_LARGE"
    default = "The request's headers are too large"


class InternalError(ApiError):
    """A bug of ours, or a replica that died over the request."""

    status, code = 500, "INTERNAL_ERROR"
    default = "Internal server error"


class QueueFullError(ApiError):
    """All slots are taken, and the queue is full."""

    status, code = 503, "INSUFFICIENT_RESOURCES"
    default = "All slots are busy and the queue is full; try again later"


class UnavailableError(ApiError):
    """The database does not answer, or the server is about to stop."""

    status, code = 503, "SERVICE_UNAVAILABLE"
    default = "The service is temporarily unavailable; try again later"


def body(code: str, message: str, job_id: str | None) -> dict[str, Any]:
    """Return the contract's error object: v1.0 reads `error.message`, v1.1's backend reads the top-level `message`."""
    return {"error": {"code": code, "message": message, "job_id": job_id}, "message": message}


def sentence(error: Mapping[str, Any], place: Iterable[object]) -> str:
    """Return which field is wrong and why, without repeating what was sent: of pydantic's `error` at `place`."""
    if error["type"] == "json_invalid":
        return "The request body is not valid JSON"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    field = ".".join(str(part) for part in place)
    if not field:
        return "The request body must be a JSON object"
    if error["type"] == "missing":
        return f"{field} is required"
    return f"{field} is invalid: {error['msg']}"


def messages(refusal: ApiError, *, headers: Iterable[tuple[bytes, bytes]] = ()) -> tuple[Message, Message]:
    """Return the start and the body of the response, with `headers` added."""
    content = json.dumps(body(refusal.code, str(refusal), refusal.job_id)).encode()
    own = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    start = {"type": "http.response.start", "status": refusal.status, "headers": [*raw, *SAFE_HEADERS, *headers]}
    return start, {"type": "http.response.body", "body": content}


async def refuse(scope: Scope, send: Send, refusal: ApiError) -> None:
    """Answer a request or a WebSocket's handshake with a refusal."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # servers answer with 403
        return
    prefix = "websocket." if scope["type"] == "websocket" else ""
    for message in messages(refusal):
        await send({**message, "type": prefix + message["type"]})
