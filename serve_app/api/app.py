"""Builds the HTTP app: its routes, its middlewares, and the error body that every refusal has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from deployments import logs
from serve_app import __version__
from serve_app.api import errors, pages, schemas
from serve_app.api import openapi as document
from serve_app.api.event_stream import JobEvents
from serve_app.api.openapi import refusals
from serve_app.api.proxy_guard import MARK
from serve_app.api.request_checks import HEALTH, BodyLimit, Clients, Gate, KeyRing, SafeHeaders, open_storage
from serve_app.api.service import RETRY_AFTER_S
from serve_app.exports.formats import MEDIA_TYPES
from serve_app.exports.options import ExportOptions  # noqa: TC001 - FastAPI reads it

if TYPE_CHECKING:
    from serve_app.api.service import JobService
    from serve_app.settings import Settings
    from serve_app.storage.api_keys import KeyStore

OPENAPI = "/openapi.json"
GUARD_MARK = MARK.decode()
log = logs.get_logger("api")
STATUS_CODES = {404: errors.NotFoundError.code, 405: errors.MethodNotAllowedError.code}

PathJobId = Annotated[str, Path(pattern=schemas.JOB_ID_PATTERN, max_length=128)]


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


def create_api(settings: Settings, service: JobService, keys: KeyStore) -> FastAPI:
    """Return the HTTP app over `service`."""
    ring = KeyRing(settings.auth.key_hashes, keys) if settings.auth.mode == "keys" else None
    app = FastAPI(
        title="ECG ML Server",
        version=__version__,
        redirect_slashes=False,
        openapi_url=OPENAPI if settings.docs else None,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_jobs(settings, service))
    app.include_router(_one_job(service))
    if settings.contract_version != "1.0":
        app.include_router(_rerun(service))
    _add_health(app, service, must_be_guarded=settings.profile == "production")
    if settings.docs:
        pages.mount_docs(app)
    if settings.console:
        pages.mount_console(app)
    app.add_middleware(BodyLimit, max_bytes=settings.limits.request_bytes)
    app.add_middleware(
        Gate,
        keys=ring,
        rate=settings.rate_limit,
        storage=open_storage(settings.rate_limit_store),
        no_key=pages.is_console if settings.console else lambda _: False,
    )
    app.add_middleware(Clients, auth=settings.auth)
    app.add_middleware(SafeHeaders)
    _answer_errors(app)
    document.complete(app, settings)
    return app


def _jobs(settings: Settings, service: JobService) -> APIRouter:
    router = APIRouter(prefix="/api/upload-video", tags=["jobs"])
    v10 = settings.contract_version == "1.0"
    job_events = JobEvents(service.changes)
    accepted = schemas.ProcessVideoResponseV10 if v10 else schemas.ProcessVideoResponse

    async def process_video(request: schemas.ProcessVideoRequest, sent: Request) -> Any:
        """Store a job and answer at once; the work begins when a slot is free."""
        return await service.submit(request, traceparent=sent.headers.get("traceparent"))

    async def process_video_v10(request: schemas.ProcessVideoRequestV10, sent: Request) -> Any:
        """Store a job and answer at once; the work begins when a slot is free."""
        return await process_video(schemas.ProcessVideoRequest(**request.model_dump()), sent)

    submitting = router.post(
        "/process-video", name="process_video", response_model=accepted, responses=refusals(*document.SUBMITTING)
    )
    submitting(process_video_v10 if v10 else process_video)

    @router.get("/status/{job_id}", response_model=schemas.StatusResponse, responses=refusals(*document.OF_A_JOB))
    async def status(job_id: PathJobId) -> Response:
        """Return a job's state, with its result if it is completed."""
        return Response(await service.status(job_id), media_type="application/json")

    @router.get("/jobs", responses=refusals(*document.LISTING))
    async def list_jobs(
        state: Annotated[schemas.WireStatus | None, Query()] = None,
        callback: Annotated[schemas.WireCallback | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        after: Annotated[str | None, Query(pattern=schemas.JOB_ID_PATTERN)] = None,
    ) -> schemas.JobList:
        """List the jobs, newest first; `callback` selects by the state of the terminal callback."""
        return await service.page(state=state, callback=callback, limit=limit, after=after)

    @router.get("/jobs/events", response_class=EventStream, responses=document.changes())
    async def events() -> EventStream:
        """Send changes of jobs as they happen: server-sent events, for some seconds; then ask again."""
        return EventStream(await job_events.open(), headers={"X-Accel-Buffering": "no"})  # nginx would wait for more

    return router


def _one_job(service: JobService) -> APIRouter:
    router = APIRouter(prefix="/api/upload-video/jobs/{job_id}", tags=["jobs"])

    @router.delete(
        "",
        response_model=schemas.DeletedResponse,
        response_description="An ended job's data is gone",
        responses={
            202: {"model": schemas.JobView, "description": "The job will end as CANCELLED"},
            **refusals(*document.OF_A_JOB, errors.JobConflictError),
        },
    )
    async def delete_job(job_id: PathJobId) -> JSONResponse:
        """Cancel a job that has not ended (202); delete the data of one that has (200)."""
        view = await service.cancel_or_delete(job_id)
        if view is None:
            return JSONResponse(schemas.DeletedResponse(job_id=job_id).model_dump())
        return JSONResponse(view.model_dump(exclude_none=True), status_code=202)

    @router.post(
        "/cancel",
        status_code=202,
        response_model_exclude_none=True,
        responses=refusals(*document.OF_A_JOB, errors.JobConflictError),
    )
    async def cancel(job_id: PathJobId) -> schemas.JobView:
        """Cancel a job that has not ended: it ends as CANCELLED. 409 for one that has; its data stays."""
        return await service.cancel(job_id)

    @router.post(
        "/redeliver",
        status_code=202,
        response_model_exclude_none=True,
        responses=refusals(*document.OF_A_JOB, errors.JobConflictError),
    )
    async def redeliver(job_id: PathJobId) -> schemas.JobView:
        """Send the terminal callback of an ended job again."""
        return await service.redeliver(job_id)

    @router.put(
        "/speakers",
        response_model_exclude_none=True,
        responses=refusals(*document.OF_A_JOB, errors.JobConflictError),
    )
    async def name_speakers(job_id: PathJobId, names: schemas.SpeakerNames) -> schemas.NamedJobView:
        """Give the speakers of a completed job names, in place of those that they had; {} takes them away."""
        return await service.name_speakers(job_id, names.root)

    @router.get("/timeline", responses=refusals(*document.OF_A_JOB))
    async def timeline(job_id: PathJobId) -> schemas.Timeline:
        """Return the job's states, attempts and callbacks, with their times."""
        return await service.timeline(job_id)

    @router.get(
        "/export",
        response_class=Response,
        responses={200: document.exported(), **refusals(*document.OF_A_JOB, errors.JobConflictError)},
    )
    async def export(job_id: PathJobId, options: Annotated[ExportOptions, Query()]) -> Response:
        """Return the result of a completed job as a file: subtitles, a transcript, a table, the speakers' turns."""
        content = await service.export(job_id, options)
        name = f"{job_id.replace(':', '_')}.{options.format}"  # Windows knows no colon in a name
        return Response(
            content,
            media_type=MEDIA_TYPES[options.format],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return router


def _rerun(service: JobService) -> APIRouter:
    """Return the route that contract 1.0 does not have."""
    router = APIRouter(prefix="/api/upload-video/jobs/{job_id}", tags=["jobs"])

    @router.post(
        "/rerun",
        status_code=202,
        response_model=schemas.ProcessVideoResponse,
        responses=refusals(*document.SUBMITTING, errors.JobNotFoundError, errors.NotFoundError),
    )
    async def rerun(job_id: PathJobId, request: schemas.RerunRequest, sent: Request) -> Any:
        """Run an ended job again with changed options; what the change does not touch is not computed again."""
        return await service.rerun(job_id, request, traceparent=sent.headers.get("traceparent"))

    return router


def _add_health(app: FastAPI, service: JobService, *, must_be_guarded: bool) -> None:
    @app.get(
        HEALTH,
        tags=["health"],
        responses={
            503: {"model": schemas.HealthResponse, "description": "A part is broken: `failing` names it"},
            **{status: response for status, response in refusals().items() if status in {405, 408, 413, 431, 500}},
        },
    )
    async def health(request: Request, response: Response) -> schemas.HealthResponse:
        """Return whether the server works, and how full it is. Open to all."""
        guarded = GUARD_MARK in request.headers or not must_be_guarded
        view = await service.health([] if guarded else ["proxy_guard"])
        response.status_code = 200 if view.status == "healthy" else 503
        return view


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(errors.ApiError)
    async def refused(_: Request, error: errors.ApiError) -> JSONResponse:
        return _refusal(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        sentence = errors.sentence(first, first["loc"][1:])
        return _refusal(errors.InvalidRequestError(sentence, job_id=_job_id(error.body)))

    @app.exception_handler(HTTPException)
    async def framework(_: Request, error: HTTPException) -> JSONResponse:
        code = STATUS_CODES.get(error.status_code, errors.InvalidRequestError.code)
        content = errors.body(code, str(error.detail), None)
        return JSONResponse(content, status_code=error.status_code, headers=dict(error.headers or {}))

    @app.exception_handler(SQLAlchemyError)
    async def database(_: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("database", exc_info=error)
        return _refusal(errors.UnavailableError(retry_after_s=RETRY_AFTER_S))

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> JSONResponse:
        log.error("internal error", exc_info=error)
        return _refusal(errors.InternalError())


def _refusal(error: errors.ApiError) -> JSONResponse:
    content = errors.body(error.code, str(error), error.job_id)
    return JSONResponse(content, status_code=error.status, headers=error.headers)


def _job_id(sent: Any) -> str | None:
    """Return the job_id of the refused request if it is valid, so that the caller knows which request it was."""
    job_id = sent.get("job_id") if isinstance(sent, dict) else None
    return job_id if isinstance(job_id, str) and re.fullmatch(schemas.JOB_ID_PATTERN, job_id) else None
