"""An example ECG Backend after the integration guide v1.1.

Start it from the repository: `python -m uvicorn examples.backend.app:create_app --factory --port 8000`
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from .jobs import Callback, JobStore
from .ml_video import MLServerError, create_client, process_video, video_url
from .settings import Settings

MAX_CALLBACK_BYTES = 50 * 1024 * 1024

logger = logging.getLogger("uvicorn.error.backend")


class ProcessRequest(BaseModel):
    """The frontend's request. Only the file is required."""

    fileKey: str = Field(min_length=1, max_length=1024)  # noqa: N815 - the frontend's spelling
    language: str | None = None
    enable_gpu: bool = True
    emotion_detection: bool = True
    max_workers: int = Field(default=4, ge=1, le=16)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the backend's app; default settings: from the environment."""
    settings = settings or Settings.from_environment()
    store = JobStore()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with create_client(settings) as app.state.client:
            yield

    app = FastAPI(title="ECG Backend (example)", lifespan=lifespan)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Return that the process runs."""
        return {"status": "healthy"}

    @app.post("/api/upload-video/request-process")
    async def request_process(request: ProcessRequest) -> JSONResponse:
        """Start a job for an uploaded file, as the frontend requests."""
        job_id = str(uuid.uuid4())
        store.open(job_id)  # before the call: a callback can be faster than its answer
        try:
            payload = {
                "job_id": job_id,
                "video_url": video_url(settings, request.fileKey),
                "fastapi_base_url": settings.fastapi_base_url,
                "language": request.language or "auto",
                "enable_gpu": request.enable_gpu,
                "emotion_detection": request.emotion_detection,
                "max_workers": request.max_workers,
            }
            answer = await process_video(app.state.client, payload)
        except MLServerError as error:
            logger.warning("job %s did not start: %s (%s)", job_id, error, error.code)
            store.not_started(job_id, error.code, str(error))
            return JSONResponse(store.open(job_id).public(), status_code=502)
        store.started(job_id, answer)
        return JSONResponse(store.open(job_id).public())

    @app.post("/api/upload-video/result")  # v1.1
    @app.post("/api/v1/ml/ml-results")  # v1.0
    async def receive_result(
        request: Request,
        webhook_id: Annotated[str | None, Header()] = None,
        x_ml_sequence: Annotated[int | None, Header()] = None,
    ) -> dict[str, str]:
        """Receive a callback: progress, result or failure. Any 2xx acknowledges it."""
        body = await read_limited(request)
        callback = await asyncio.to_thread(parse, body, dict(request.headers), settings.webhook_secret)
        outcome = store.apply(callback, webhook_id=webhook_id, sequence=x_ml_sequence)
        logger.info("job %s: %s %s %% (%s)", callback.job_id, callback.status, callback.progress, outcome)
        return {"status": outcome}

    @app.get("/api/v1/ml/job-status/{job_id}")
    def job_status(job_id: str) -> JSONResponse:
        """Return the job's state; the frontend polls this."""
        job = store.get(job_id)
        if job is None:
            raise HTTPException(404, "no such job")
        return JSONResponse(job.public())

    return app


async def read_limited(request: Request) -> bytes:
    """Return the body's exact bytes (the signature is over them). Raises 413 as soon as they are too many."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_CALLBACK_BYTES:
            raise HTTPException(413, "callback body is larger than 50 MB")
    return bytes(body)


def parse(body: bytes, headers: dict[str, str], secret: str | None) -> Callback:
    """Check the signature, then the form. Raises 401 or 400. Runs in a thread: 50 MB take a while."""
    if secret is not None:
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError) as error:  # ValueError: a header that is no signature at all
            raise HTTPException(401, "invalid webhook signature") from error
    try:
        return Callback.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, "not a callback of the ML Server") from error
