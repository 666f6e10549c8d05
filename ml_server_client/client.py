"""Calls to the ML Server."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from ml_server_client.errors import (
    BusyError,
    ConnectionFailedError,
    JobFailedError,
    MLServerError,
    NoAnswerError,
    RefusedError,
)
from ml_server_client.models import Accepted, JobStatus, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USER_AGENT = "ECS-FastAPI-Backend/1.0"
TIMEOUT_S = 300.0
"""That of the integration guide. The server answers within 5 s."""
PAUSES_S = (0.5, 2.0)
"""Pauses before the retries of a request whose connection failed."""
PATIENCE_S = 60.0
"""How long `wait` retries while the server is unreachable or busy."""
BUSY = (429, 503)
BUSY_S = 5.0
"""`retry_after_s` if a busy server sends no `Retry-After`."""
RERUN_OPTIONS = frozenset(
    "video_url language enable_gpu emotion_detection max_workers num_speakers min_speakers max_speakers vocabulary"  # noqa: SIM905
    " languages audio_track channels start_s end_s custom_metadata callback_headers".split()
)
Model = TypeVar("Model", bound=BaseModel)


class MLServer:
    """Client of the ML Server at `url`, one per process. What server or network do wrong raises `MLServerError`.

    Arguments that JSON cannot write raise TypeError or ValueError.
    """

    def __init__(
        self,
        url: str,
        *,
        callback_base: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`callback_base`: URL of this backend for the ML Server; None: the server's own default (`backend_url`).

        `transport` is httpx's, for tests and proxies.
        """
        self._callback_base = callback_base
        headers = {"User-Agent": USER_AGENT} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s, headers=headers, transport=transport)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read MODEL_SERVER_URL (or ml_api_server_url), FASTAPI_BASE_URL, ML_API_TIMEOUT (s) and ML_API_KEY."""
        url = environment.get("MODEL_SERVER_URL") or environment.get("ml_api_server_url")
        return cls(
            url or "http://localhost:8080",
            callback_base=environment.get("FASTAPI_BASE_URL") or None,
            api_key=environment.get("ML_API_KEY") or None,
            timeout_s=float(environment.get("ML_API_TIMEOUT") or TIMEOUT_S),
        )

    async def submit(
        self,
        video_url: str,
        *,
        job_id: str | None = None,
        language: str = "auto",
        enable_gpu: bool = True,
        emotion_detection: bool = True,
        max_workers: int = 4,
        num_speakers: int | None = None,
        min_speakers: int | None = None,
        max_speakers: int | None = None,
        vocabulary: Sequence[str] = (),
        languages: Sequence[str] = (),
        audio_track: int | str | None = None,
        channels: Literal["mix", "separate"] = "mix",
        start_s: float | None = None,
        end_s: float | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
        callback_headers: Mapping[str, str] | None = None,
    ) -> Accepted:
        """Submit a video. A repeated `job_id` starts a new run only if the job has failed.

        Args:
            video_url: Presigned, good for GET.
            job_id: A new UUID by default. Give your own where you store the job first, as you should: a callback can
                be faster than this call's answer.
            language: `auto` or a code such as `ko`.
            enable_gpu: False prefers CPUs.
            emotion_detection: False leaves emotions out.
            max_workers: 1-16, pieces of the video in flight at once.
            num_speakers: How many people speak, where that is known.
            min_speakers: At least so many people speak.
            max_speakers: At most so many people speak.
            vocabulary: Up to 100 names and terms that the recogniser should know.
            languages: The only languages that are looked for, where `language` is `auto`.
            audio_track: Which audio track to listen to: its number, from 1, or its language.
            channels: `separate` where each channel has one speaker, as of a telephone.
            start_s: Only the part of the video from here on. Times of the result count from the video's start.
            end_s: Only the part of the video until here.
            custom_metadata: JSON of at most 4,096 bytes, repeated in every callback and the status.
            callback_headers: At most 8 headers of every callback, such as a gateway's token; kept secret.
        """
        if isinstance(vocabulary, str) or isinstance(languages, str):
            raise TypeError("vocabulary and languages are lists, not a text")
        request = {
            "job_id": job_id or str(uuid.uuid4()),
            "video_url": video_url,
            "language": language,
            "enable_gpu": enable_gpu,
            "emotion_detection": emotion_detection,
            "max_workers": max_workers,
            "num_speakers": num_speakers,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
            "vocabulary": list(vocabulary) or None,
            "languages": list(languages) or None,
            "audio_track": audio_track,
            "channels": None if channels == "mix" else channels,
            "start_s": start_s,
            "end_s": end_s,
            "custom_metadata": None if custom_metadata is None else dict(custom_metadata),
            "callback_headers": None if callback_headers is None else dict(callback_headers),
            "fastapi_base_url": self._callback_base,
        }
        given = {name: value for name, value in request.items() if value is not None}
        return _parsed(Accepted, await self._call("POST", "/api/upload-video/process-video", json=given))

    async def rerun(self, job_id: str, **options: Any) -> Accepted:
        """Run a job that has ended again with other options; what these do not touch is not computed again.

        An option that is not given keeps the job's present value, None is its default. The old result stays in `status`
        until the new run is completed. Never sent twice: if no answer comes, look at the job's timeline, where an event
        `queued` with a higher `run` means that it was taken. An unknown option raises TypeError.

        Args:
            job_id: Of a job that is completed or has failed. One that has not ended raises `RefusedError` (409).
            options: As of `submit`, without `job_id`. A newly signed `video_url` of the same video is needed wherever
                the run has to listen to it; without one the server raises `RefusedError` (400).
        """
        if unknown := options.keys() - RERUN_OPTIONS:
            raise TypeError(f"rerun has no option {', '.join(sorted(unknown))}")
        path = f"/api/upload-video/jobs/{_segment(job_id)}/rerun"
        return _parsed(Accepted, await self._once("POST", path, json=options))

    async def status(self, job_id: str) -> JobStatus:
        """Return a job's state, with the result of its newest completed run."""
        answer = await self._call("GET", f"/api/upload-video/status/{_segment(job_id)}")
        return await asyncio.to_thread(_parsed, JobStatus, answer)

    async def wait(self, job_id: str, *, timeout_s: float | None = None, poll_s: float = 2.0) -> Result:
        """Wait for the result of the present run: for scripts, and for backends that callbacks cannot reach.

        Raises `JobFailedError`, and TimeoutError after `timeout_s`. Retries while the server is unreachable or busy.
        """
        answered_s = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    job = await self.status(job_id)
                    answered_s = time.monotonic()
                except (ConnectionFailedError, NoAnswerError, BusyError):
                    if time.monotonic() - answered_s > PATIENCE_S:
                        raise
                else:
                    if job.result is not None and job.status == "completed":
                        return job.result
                    if job.ended:
                        raise JobFailedError(job.error_message or job.message, code=job.error_code or "INTERNAL_ERROR")
                await asyncio.sleep(poll_s)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job. Return True if it will end as failed, with `CANCELLED`; False if it had ended."""
        try:
            await self._once("POST", f"/api/upload-video/jobs/{_segment(job_id)}/cancel")
        except RefusedError as refusal:
            if refusal.http_status == httpx.codes.CONFLICT:
                return False
            raise
        return True

    async def delete(self, job_id: str) -> None:
        """Delete the data of an ended job for good. A job that has not ended is cancelled instead."""
        await self._once("DELETE", f"/api/upload-video/jobs/{_segment(job_id)}")

    async def name_speakers(self, job_id: str, names: Mapping[str, str]) -> JobStatus:
        """Give the speakers of a completed job names, by speaker id; return its state, without the result.

        The names replace all that the job had; an empty mapping removes them. Status and exports have them at once, and
        callbacks after `redeliver`.
        """
        path = f"/api/upload-video/jobs/{_segment(job_id)}/speakers"
        return _parsed(JobStatus, await self._call("PUT", path, json=dict(names)))

    async def redeliver(self, job_id: str) -> None:
        """Have the terminal callback of a job sent again, for a backend that lost it."""
        await self._call("POST", f"/api/upload-video/jobs/{_segment(job_id)}/redeliver")

    async def healthy(self) -> bool:
        """Return whether the server works. A full queue counts as healthy."""
        try:
            return (await self._http.get("/health")).is_success
        except httpx.HTTPError:
            return False

    async def _call(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Return a successful response; retry if the connection fails. For requests that may be repeated only."""
        for pause_s in PAUSES_S:
            with suppress(ConnectionFailedError):
                return await self._once(method, path, **content)
            await asyncio.sleep(pause_s)
        return await self._once(method, path, **content)

    async def _once(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return _successful(await self._http.request(method, path, **content))
        except httpx.TimeoutException as error:
            raise NoAnswerError("The ML Server did not answer in time") from error
        except httpx.HTTPError as error:
            raise ConnectionFailedError(f"ML Server connection error: {error}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()


def _successful(response: httpx.Response) -> httpx.Response:
    """Return the response. Raises the error of its body, or a generic one if a proxy answered instead."""
    if response.is_success:
        return response
    body = _object(response)
    error = body.get("error")
    code = str((isinstance(error, dict) and error.get("code")) or "ML_SERVER_ERROR")
    message = str(body.get("message") or f"HTTP {response.status_code}")
    if response.status_code in BUSY:
        wait = response.headers.get("Retry-After", "")
        wait_s = float(wait) if wait.isascii() and wait.isdigit() else BUSY_S
        raise BusyError(message, code=code, http_status=response.status_code, retry_after_s=wait_s)
    raise RefusedError(message, code=code, http_status=response.status_code)


def _parsed(model: type[Model], response: httpx.Response) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValueError as error:
        raise MLServerError("The answer is not the ML Server's", code="ML_SERVER_ERROR") from error


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _segment(job_id: str) -> str:
    return quote(job_id, safe="")
