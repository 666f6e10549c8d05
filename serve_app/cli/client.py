"""A small HTTP client of a running ML Server, for the commands. The server's own calls are in `deployments/net`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 30.0
PROCESS_PATH = "/api/upload-video/process-video"
STATUS_PATH = "/api/upload-video/status"
JOBS_PATH = "/api/upload-video/jobs"

ENDED = ("completed", "failed")


class ClientError(Exception):
    """Base. The text is a sentence for the user."""


class UnreachableError(ClientError):
    """No server answers at this address."""


class RefusedError(ClientError):
    """The server answered with an error in the contract's form."""

    def __init__(self, message: str, *, code: str, http_status: int) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status


class ServerClient:
    """Calls to the ML Server at `server_url`. Each raises `ClientError`; use it as a context manager."""

    def __init__(self, server_url: str, *, api_key: str | None = None) -> None:
        if not is_http_url(server_url):
            raise ClientError(f"{server_url} is no address of a server; http://127.0.0.1:8080 would be one.")
        self.server_url = server_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.server_url,
            timeout=TIMEOUT_S,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            trust_env=not is_loopback(self.server_url),  # a proxy cannot reach this machine's loopback
        )

    def process_video(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a job; return the response."""
        return self._call("POST", PROCESS_PATH, json=dict(request))

    def status(self, job_id: str) -> dict[str, Any]:
        """Return the job's state, with its result if it is completed."""
        return self._call("GET", f"{STATUS_PATH}/{quote(job_id, safe='')}")

    def jobs(self, *, state: str | None, callback: str | None, limit: int, after: str | None) -> dict[str, Any]:
        """Return a page of jobs, newest first; `callback` selects by the state of the terminal callback."""
        asked = {"state": state, "callback": callback, "limit": limit, "after": after}
        return self._call("GET", JOBS_PATH, params={name: value for name, value in asked.items() if value is not None})

    def timeline(self, job_id: str) -> dict[str, Any]:
        """Return the job's events."""
        return self._call("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}/timeline")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job that has not ended; return its state."""
        return self._call("POST", f"{JOBS_PATH}/{quote(job_id, safe='')}/cancel")

    def name_speakers(self, job_id: str, names: Mapping[str, str]) -> dict[str, Any]:
        """Give the speakers of a completed job these names instead of those that they had; return the job's state."""
        return self._call("PUT", f"{JOBS_PATH}/{quote(job_id, safe='')}/speakers", json=dict(names))

    def redeliver(self, job_id: str) -> dict[str, Any]:
        """Have the terminal callback sent again; return the job's state."""
        return self._call("POST", f"{JOBS_PATH}/{quote(job_id, safe='')}/redeliver")

    def rerun(self, job_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Run an ended job again with these fields changed; return the response."""
        return self._call("POST", f"{JOBS_PATH}/{quote(job_id, safe='')}/rerun", json=dict(changes))

    def export(self, job_id: str, options: Mapping[str, Any]) -> bytes:
        """Return the job's result as a file; `options` are those of the route."""
        response = self._send("GET", f"{JOBS_PATH}/{quote(job_id, safe='')}/export", params=dict(options))
        if not response.is_success:
            raise _refused(response)
        return response.content

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the server is healthy, and the response's body."""
        response = self._send("GET", "/health")
        return response.is_success, json_object(response)

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = self._send(method, path, **arguments)
        body = json_object(response)
        if response.is_success and body:
            return body
        raise _refused(response)

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            raise UnreachableError(f"The server at {self.server_url} did not answer within {TIMEOUT_S:g} s.") from error
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"No server answers at {self.server_url}. Start one with: ml-server up --config configs/local.yaml"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(f"The connection to {self.server_url} failed: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.close()


def _refused(response: httpx.Response) -> RefusedError:
    body = json_object(response)
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    message = body.get("message") or error.get("message") or f"It answered HTTP {response.status_code}"
    if retry_after := response.headers.get("Retry-After"):
        message = f"{message} (try again in {retry_after} s)"
    return RefusedError(str(message), code=str(error.get("code", "")), http_status=response.status_code)


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the body as a JSON object; empty if it is something else, such as a proxy's page."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def is_http_url(text: str) -> bool:
    """Return whether `text` is an HTTP URL with a host."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is localhost or a loopback address."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
