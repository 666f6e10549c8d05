"""The routes, and the error body that every refusal gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from deployments import logs
from serve_app import __version__
from serve_app.api import errors, schemas
from serve_app.api.clients import Clients
from serve_app.api.limits import HEALTH, BodyLimit, Gate
from serve_app.api.service import RETRY_AFTER_S

if TYPE_CHECKING:
    from serve_app.api.service import JobService
    from serve_app.settings import Settings

log = logs.get_logger("api")
STATUS_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}

PathJobId = Annotated[str, Path(pattern=schemas.JOB_ID_PATTERN, max_length=128)]
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorResponse} for status in (400, 401, 403, 404, 405, 409, 413, 429, 500, 503)
}


def create_api(settings: Settings, service: JobService) -> FastAPI:
    """The whole HTTP edge over `service`."""
    app = FastAPI(title="ECG ML Server", version=__version__, redirect_slashes=False)
    app.include_router(_jobs(settings, service))
    app.include_router(_health(service))
    app.add_middleware(BodyLimit, max_bytes=settings.limits.request_bytes)
    app.add_middleware(Gate, key_hashes=settings.auth.hashes, rate=settings.rate_limit)
    app.add_middleware(Clients, networks=settings.auth.networks, proxies=settings.auth.proxies)
    _answer_errors(app)
    return app


def _jobs(settings: Settings, service: JobService) -> APIRouter:
    router = APIRouter(prefix="/api/upload-video", responses=REFUSALS)
    v10 = settings.contract_version == "1.0"
    accepted = schemas.ProcessVideoResponseV10 if v10 else schemas.ProcessVideoResponse

    @router.post("/process-video", response_model=accepted)
    async def process_video(request: schemas.ProcessVideoRequest) -> Any:
        """Store a job and answer at once; the work begins when a slot is free."""
        return await service.submit(request)

    @router.get("/status/{job_id}", response_model=schemas.StatusResponse)
    async def status(job_id: PathJobId) -> Response:
        """Where a job stands, with its result when it is completed."""
        return Response(await service.status(job_id), media_type="application/json")

    @router.get("/jobs")
    async def list_jobs(
        state: Annotated[str | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        after: Annotated[str | None, Query(pattern=schemas.JOB_ID_PATTERN)] = None,
    ) -> schemas.JobList:
        """The jobs, newest first."""
        return await service.page(state=state, limit=limit, after=after)

    @router.delete(
        "/jobs/{job_id}", responses={202: {"model": schemas.JobView}, 200: {"model": schemas.DeletedResponse}}
    )
    async def delete_job(job_id: PathJobId) -> JSONResponse:
        """Cancel a job that has not ended (202); delete the data of one that has (200)."""
        view = await service.cancel_or_delete(job_id)
        if view is None:
            return JSONResponse(schemas.DeletedResponse(job_id=job_id).model_dump())
        return JSONResponse(view.model_dump(exclude_none=True), status_code=202)

    @router.post("/jobs/{job_id}/redeliver", status_code=202, response_model_exclude_none=True)
    async def redeliver(job_id: PathJobId) -> schemas.JobView:
        """Send the terminal callback of an ended job again."""
        return await service.redeliver(job_id)

    @router.get("/jobs/{job_id}/timeline")
    async def timeline(job_id: PathJobId) -> schemas.Timeline:
        """The job's states, attempts and callbacks, with their times."""
        return await service.timeline(job_id)

    return router


def _health(service: JobService) -> APIRouter:
    router = APIRouter()

    @router.get(HEALTH, responses={503: {"model": schemas.HealthResponse}})
    async def health(response: Response) -> schemas.HealthResponse:
        """Whether the server works, and how full it is. Open to all."""
        view = await service.health()
        response.status_code = 200 if view.status == "healthy" else 503
        return view

    return router


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(errors.ApiError)
    async def refused(_: Request, error: errors.ApiError) -> JSONResponse:
        return _refusal(error.status, error.code, str(error), error.job_id, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(400, errors.InvalidRequestError.code, _sentence(error), _job_id(error.body))

    @app.exception_handler(HTTPException)
    async def framework(_: Request, error: HTTPException) -> JSONResponse:
        code = STATUS_CODES.get(error.status_code, errors.InvalidRequestError.code)
        return _refusal(error.status_code, code, str(error.detail), None, dict(error.headers or {}))

    @app.exception_handler(SQLAlchemyError)
    async def database(_: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("database", exc_info=error)
        away = errors.UnavailableError(retry_after_s=RETRY_AFTER_S)
        return _refusal(away.status, away.code, str(away), None, away.headers)

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> JSONResponse:
        log.error("internal error", exc_info=error)
        return _refusal(500, "INTERNAL_ERROR", "Internal server error", None)


def _refusal(
    status: int, code: str, message: str, job_id: str | None, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(errors.body(code, message, job_id), status_code=status, headers=headers)


def _sentence(error: RequestValidationError) -> str:
    """Name the field and what is wrong with it, and never repeat what was sent."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "The request body is not valid JSON"
    field = ".".join(str(part) for part in first["loc"][1:])
    if not field:
        return "The request body must be a JSON object"
    if first["type"] == "missing":
        return f"{field} is required"
    return f"{field} is invalid: {first['msg']}"


def _job_id(sent: Any) -> str | None:
    """The request's own job_id where it is a sane one, so that the caller knows which request was refused."""
    job_id = sent.get("job_id") if isinstance(sent, dict) else None
    return job_id if isinstance(job_id, str) and len(job_id) <= 128 else None  # noqa: PLR2004 - the contract's bound
