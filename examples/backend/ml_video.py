"""Calls the ML Server: the request that starts a job, and its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from .settings import Settings

USER_AGENT = "ECS-FastAPI-Backend/1.0"


class MLServerError(Exception):
    """The job did not start. `code` and the text are for the frontend."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def video_url(settings: Settings, file_key: str) -> str:
    """Return the video's URL for the ML Server. With S3: `generate_presigned_url("get_object", …, ExpiresIn=3600)`."""
    return f"{settings.video_base_url}/{quote(file_key)}"


def create_client(settings: Settings) -> httpx.AsyncClient:
    """Return the HTTP client, one for the whole process."""
    headers = {"User-Agent": USER_AGENT}
    if settings.ml_api_key:
        headers["Authorization"] = f"Bearer {settings.ml_api_key}"
    return httpx.AsyncClient(base_url=settings.model_server_url, timeout=settings.ml_api_timeout_s, headers=headers)


async def process_video(client: httpx.AsyncClient, payload: dict[str, Any]) -> dict[str, Any]:
    """Submit a video to the ML Server; return the response. Raises `MLServerError`.

    After an error, the same `job_id` may be sent again: the ML Server never runs it twice at once.
    """
    try:
        response = await client.post("/api/upload-video/process-video", json=payload)
    except httpx.TimeoutException as error:
        raise MLServerError("TIMEOUT_ERROR", "ML Server processing timeout") from error
    except httpx.RequestError as error:
        raise MLServerError("CONNECTION_ERROR", f"ML Server connection error: {error}") from error
    body = _json_object(response)
    if response.status_code != httpx.codes.OK:
        code, message = error_of(body)
        raise MLServerError(code, f"ML Server error: {message}")
    return body


def error_of(body: dict[str, Any]) -> tuple[str, str]:
    """Return `error.code` and the top-level message, or defaults if a proxy answered instead."""
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return str(code or "ML_SERVER_ERROR"), str(body.get("message") or "Unknown error")


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
