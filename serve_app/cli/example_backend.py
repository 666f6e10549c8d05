"""The example backend (`examples/backend`) as a program of its own, and the frontend's calls to it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from serve_app.cli.child_process import ChildProcess, free_port
from serve_app.cli.client import ClientError, json_object
from serve_app.cli.samples import examples_folder

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 0.25
START_TIMEOUT_S = 60
CALL_TIMEOUT_S = 310
"""A little longer than the backend's own patience with the ML Server (`ML_API_TIMEOUT`)."""


class BackendError(ClientError):
    """The backend did not start, stopped answering, or was refused by the ML Server."""


class ExampleBackend:
    """Runs on a free loopback port while the context is open."""

    def __init__(self, *, server_url: str, video_base_url: str, log_path: Path) -> None:
        port = free_port()
        base_url = f"http://127.0.0.1:{port}"
        environment = {
            "MODEL_SERVER_URL": server_url,
            "FASTAPI_BASE_URL": base_url,
            "VIDEO_BASE_URL": video_base_url,
            "ML_API_TIMEOUT": "300",
            "ML_API_KEY": "",
            "ML_WEBHOOK_SECRET": "",
            "NO_PROXY": "127.0.0.1",
        }
        self._child = ChildProcess(command(port), log_path=log_path, environment=environment, stop_timeout_s=10)
        self._http = httpx.Client(base_url=base_url, timeout=CALL_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        self._child.__enter__()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.close()
        self._child.stop()

    def request_process(self, file_key: str) -> str:
        """Ask for a video to be processed; the job's id. Raises `BackendError`."""
        response = self._call("POST", "/api/upload-video/request-process", json={"fileKey": file_key})
        body = json_object(response)
        if not response.is_success:
            raise BackendError(f"The job did not start: {body.get('error_message')} [{body.get('error_code')}]")
        return str(body["job_id"])

    def job_status(self, job_id: str) -> dict[str, Any]:
        """What the callbacks have told the backend so far. Raises `BackendError`."""
        return json_object(self._call("GET", f"/api/v1/ml/job-status/{job_id}"))

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise BackendError(f"The example backend does not answer; its log is {self._child.log_path}.") from error

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._child.exit_code is not None or time.monotonic() > deadline_s:
                raise BackendError(f"The example backend did not start. Its output ends with:\n{self._child.tail()}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            return self._http.get("/health", timeout=5).is_success
        except httpx.HTTPError:
            return False


def command(port: int) -> list[str]:
    """How it is started."""
    program = [sys.executable, "-m", "uvicorn", "--app-dir", str(examples_folder()), "backend.app:create_app"]
    return [*program, "--factory", "--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "3"]
