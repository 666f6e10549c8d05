"""The bodies of callbacks, as bytes. They are stored as they are made: every try sends, and signs, the same bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from serve_app.jobs.progress import SENTENCES, Progress
from serve_app.jobs.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployments.errors import Locale
    from serve_app.jobs.job import Job, Outcome


def progress(job_id: str, now: Progress, *, locale: Locale) -> bytes:
    """Return the body that reports a job that waits or runs."""
    message = SENTENCES[now.stage][locale]
    return dump({"job_id": job_id, "status": "processing", "progress": now.percent, "message": message})


def end_body(job: Job, outcome: Outcome, *, locale: Locale, max_bytes: int) -> bytes:
    """Return the body that reports the end of a run; where its speakers have names, with these."""
    if outcome.result is None:
        body = failed(job.job_id, job.progress, code=str(outcome.error_code), message=str(outcome.error_message))
    else:
        room = max_bytes - len(with_metadata(b"", job.custom_metadata)) - len(with_speakers(b"", job.speakers))
        body = completed(job.job_id, outcome.result, locale=locale, max_bytes=room)
    return with_speakers(with_metadata(body, job.custom_metadata), job.speakers)


def with_metadata(body: bytes, custom_metadata: str | None) -> bytes:
    """Return a body with the caller's own JSON, where there is any."""
    return body if custom_metadata is None else body[:-1] + b',"custom_metadata":' + custom_metadata.encode() + b"}"


def with_speakers(body: bytes, names: Mapping[str, str] | None) -> bytes:
    """Return a body with the speakers' names, where they have any."""
    return body if names is None else body[:-1] + b',"speakers":' + dump(dict(names)) + b"}"


def failed(job_id: str, percent: int, *, code: str, message: str) -> bytes:
    """Return the body for a run that ended with an error; `percent` is its progress at that time."""
    fields = {"message": message, "error_message": message, "error_code": code}
    return dump({"job_id": job_id, "status": "failed", "progress": percent, **fields})


def completed(job_id: str, result: bytes, *, locale: Locale, max_bytes: int) -> bytes:
    """Return the body for a run that ended with `result` (JSON).

    A body over `max_bytes` loses the additions first (word confidences, then emotion scores), then the segments;
    `result_url` then says where the whole result is.
    """
    body = _completed(job_id, result, locale)
    if len(body) <= max_bytes:
        return body
    content = json.loads(result)
    words = [word for segment in content["segments"] for word in segment["words"]]
    for owners, addition in ((words, "confidence"), (content["segments"], "emotion")):
        for owner in owners:
            owner.pop(addition, None)
        body = _completed(job_id, dump(content), locale)
        if len(body) <= max_bytes:
            return body
    del content["segments"]
    if len(dump(content)) > max_bytes // 2:
        del content["text"]
    content["result_url"] = status_url(job_id)
    return _completed(job_id, dump(content), locale)


def status_url(job_id: str) -> str:
    """Return the path of the job's status answer."""
    return f"/api/upload-video/status/{quote(job_id, safe=':')}"


def dump(content: dict[str, Any]) -> bytes:
    """Return compact UTF-8 JSON. Raises ValueError for NaN or infinity, which JSON does not know."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _completed(job_id: str, result: bytes, locale: Locale) -> bytes:
    message = SENTENCES[Stage.DONE][locale]
    head = dump({"job_id": job_id, "status": "completed", "progress": 100, "message": message})
    return head[:-1] + b',"result":' + result + b"}"
