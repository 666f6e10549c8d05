"""Turns the checked bodies of requests into what the store takes: a new job, or a new run of one."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from deployments.net.download import time_left_s
from deployments.net.policy import AddressRefusedError, check_callback_url, check_video_url
from deployments.transcriber.config import languages
from serve_app.api import errors, schemas
from serve_app.callbacks.payloads import dump
from serve_app.jobs.job import CallbackExtras, Job, JobOptions, NewJob, Rerun
from serve_app.pipeline.reuse import needs_sound

if TYPE_CHECKING:
    from serve_app.settings import Settings
    from serve_app.storage.checkpoints import Checkpoints


def rerun_of(
    job: Job,
    request: schemas.RerunRequest,
    settings: Settings,
    checkpoints: Checkpoints,
    *,
    traceparent: str | None,
) -> Rerun:
    """Return the run that is asked for. Blocking: it looks at what is stored of the runs before.

    Raises `JobConflictError` for another video, and `InvalidRequestError` also where the run would have to fetch the
    video and the request brings no URL.
    """
    given = request.given
    video_url = given.pop("video_url", None)
    merged = _merged(job, {"video_url": video_url or job.video_url, **given})
    _check_addresses(merged, job.callback_url, settings)
    if _place(merged.video_url) != _place(job.video_url):
        raise errors.JobConflictError("video_url is of another video: only its query may differ", job_id=job.job_id)
    options = _options(merged, settings, traceparent)
    sound = needs_sound(job.job_id, options, settings, checkpoints)
    if sound and video_url is None:
        raise errors.InvalidRequestError(
            "video_url is required: this run has to listen to the video, and its signed URL is not kept",
            job_id=job.job_id,
        )
    now = time.time()
    before, after = job.options.content, options.content
    return Rerun(
        job=job,
        video_url=merged.video_url,
        video_expires_at=now + time_left_s(merged.video_url, now=now),
        options=options,
        extras=_extras(merged),
        needs_sound=sound,
        changed=tuple(name for name in JobOptions.model_fields if before.get(name) != after.get(name)),
    )


def new_job(request: schemas.ProcessVideoRequest, settings: Settings, *, traceparent: str | None) -> NewJob:
    """Return the job that is asked for. Raises the `ApiError`s of the contract for what this server cannot do."""
    base = request.fastapi_base_url or settings.backend_url
    callback_url = None if base is None else base.rstrip("/") + settings.callback_path
    options = _options(request, settings, traceparent)
    _check_addresses(request, callback_url, settings)
    now = time.time()
    return NewJob(
        job_id=request.job_id,
        video_url=request.video_url,
        video_expires_at=now + time_left_s(request.video_url, now=now),
        callback_url=callback_url,
        options=options,
        fingerprint=fingerprint(request.video_url, callback_url, options),
        extras=_extras(request),
    )


def _options(request: schemas.ProcessVideoRequest, settings: Settings, traceparent: str | None) -> JobOptions:
    """Return the request's options. Raises `InvalidRequestError` for a language that the recogniser lacks."""
    language = request.language.lower()
    spoken = languages(settings.on(enable_gpu=request.enable_gpu).transcriber)
    wrong = [{language} - {"auto"} - spoken, set(request.languages) - spoken]
    if any(wrong):
        which = "language is not one that" if wrong[0] else "languages has one that is not what"
        known = ", ".join((["auto"] if wrong[0] else []) + sorted(spoken))
        raise errors.InvalidRequestError(f"{which} this server can do: {known}", job_id=request.job_id)
    return JobOptions(
        **request.model_dump(include=set(JobOptions.model_fields), exclude={"language"}),
        language=language,
        traceparent=traceparent,
    )


def _check_addresses(request: schemas.ProcessVideoRequest, callback_url: str | None, settings: Settings) -> None:
    """Raise the error of an address that this server may not connect to."""
    try:
        check_video_url(request.video_url, settings.extractor.net)
    except AddressRefusedError as refusal:
        raise errors.VideoUrlNotAllowedError(job_id=request.job_id) from refusal
    if callback_url is not None:
        try:
            check_callback_url(callback_url, settings.callbacks)
        except AddressRefusedError as refusal:
            raise errors.CallbackNotAllowedError(job_id=request.job_id) from refusal


def _merged(job: Job, changes: dict[str, Any]) -> schemas.ProcessVideoRequest:
    """Return the request that a job would be posted with, with these fields changed: null is a field's default.

    Raises `InvalidRequestError` where the fields do not fit together.
    """
    present = job.options.model_dump(exclude={"traceparent"})
    if job.custom_metadata is not None:
        present["custom_metadata"] = json.loads(job.custom_metadata)
    fields = present | {"callback_headers": job.callback_headers, "job_id": job.job_id} | changes
    try:
        return schemas.ProcessVideoRequest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise errors.InvalidRequestError(errors.sentence(first, first["loc"]), job_id=job.job_id) from error


def _extras(request: schemas.ProcessVideoRequest) -> CallbackExtras:
    metadata = None if request.custom_metadata is None else dump(request.custom_metadata).decode()
    return CallbackExtras(custom_metadata=metadata, headers=request.callback_headers)


def fingerprint(video_url: str, callback_url: str | None, options: JobOptions) -> str:
    """Return a digest that is equal for equal requests: the video URL without query, the callback URL, the options."""
    content = [*_place(video_url), callback_url, options.content]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _place(url: str) -> tuple[str, str, str]:
    """Return scheme, host with port, and path: what names a video. The query only signs the download."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower(), parts.path
