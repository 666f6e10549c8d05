"""The same backend with `ml_server_client`: `app.py` shows what the client does inside.

Start it from the repository: `python -m uvicorn examples.backend.client_app:create_app --factory --port 8000`
"""

import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

from ml_server_client import Callback, MLServer, MLServerError
from ml_server_client.router import callback_router

from . import jobs
from .app import ProcessRequest
from .ml_video import video_url
from .settings import Settings

logger = logging.getLogger("uvicorn.error.backend")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the backend's app; default settings: from the environment."""
    settings = settings or Settings.from_environment()
    store = jobs.JobStore()
    ml_server = MLServer(
        settings.model_server_url,
        callback_base=settings.fastapi_base_url,
        api_key=settings.ml_api_key,
        timeout_s=settings.ml_api_timeout_s,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ml_server:
            yield

    async def take(callback: Callback) -> None:
        """Store a callback: progress, result or failure. It is verified and new; one at a time per job."""
        store.take(jobs.Callback.model_validate(callback.model_dump(exclude_unset=True)))
        logger.info("job %s: %s %s %%", callback.job_id, callback.status, callback.progress)

    app = FastAPI(title="ECG Backend (example with ml_server_client)", lifespan=lifespan)
    secrets = [settings.webhook_secret] if settings.webhook_secret else []
    app.include_router(callback_router(take, secrets=secrets))

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
            answer = await ml_server.submit(
                video_url(settings, request.fileKey),
                job_id=job_id,
                language=request.language or "auto",
                enable_gpu=request.enable_gpu,
                emotion_detection=request.emotion_detection,
                max_workers=request.max_workers,
            )
        except MLServerError as error:
            logger.warning("job %s did not start: %s (%s)", job_id, error, error.code)
            store.not_started(job_id, error.code, str(error))
            return JSONResponse(store.open(job_id).public(), status_code=502)
        store.started(job_id, answer.model_dump())
        return JSONResponse(store.open(job_id).public())

    @app.get("/api/v1/ml/job-status/{job_id}")
    def job_status(job_id: str) -> JSONResponse:
        """Return the job's state; the frontend polls this."""
        job = store.get(job_id)
        if job is None:
            raise HTTPException(404, "no such job")
        return JSONResponse(job.public())

    return app
