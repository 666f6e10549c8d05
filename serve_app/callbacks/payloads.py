"""The bodies of callbacks, as bytes: what is stored is what every try sends, so that a signature stays true."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from serve_app.jobs.progress import SENTENCES, Progress, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.errors import Locale


def progress(job_id: str, now: Progress, *, locale: Locale) -> bytes:
    """A job that waits or runs."""
    message = SENTENCES[now.stage][locale]
    return dump({"job_id": job_id, "status": "processing", "progress": now.percent, "message": message})


def failed(job_id: str, percent: int, *, code: str, message: str) -> bytes:
    """A run that ended with an error; `percent` is where it stood."""
    fields = {"message": message, "error_message": message, "error_code": code}
    return dump({"job_id": job_id, "status": "failed", "progress": percent, **fields})


def completed(job_id: str, result: bytes, *, locale: Locale, max_bytes: int) -> bytes:
    """A run that ended with `result` (JSON).

    A body over `max_bytes` loses the additions first (word confidences, then emotion scores), then the segments,
    for which `result_url` then stands.
    """
    body = _completed(job_id, result, locale)
    if len(body) <= max_bytes:
        return body
    content = json.loads(result)
    shrink: tuple[Callable[[dict[str, Any]], None], ...] = (_drop_confidences, _drop_emotions)
    for step in shrink:
        step(content)
        body = _completed(job_id, dump(content), locale)
        if len(body) <= max_bytes:
            return body
    del content["segments"]
    if len(dump(content)) > max_bytes // 2:
        del content["text"]
    content["result_url"] = status_url(job_id)
    return _completed(job_id, dump(content), locale)


def status_url(job_id: str) -> str:
    """Where the manual look-up of a job lies."""
    return f"/api/upload-video/status/{quote(job_id, safe=':')}"


def new_message_id() -> str:
    """A `webhook-id`: the same on every try of one callback."""
    return f"msg_{uuid.uuid4().hex}"


def dump(content: dict[str, Any]) -> bytes:
    """Compact UTF-8 JSON. Raises ValueError for NaN or infinity, which JSON does not know."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _completed(job_id: str, result: bytes, locale: Locale) -> bytes:
    message = SENTENCES[Stage.DONE][locale]
    head = dump({"job_id": job_id, "status": "completed", "progress": 100, "message": message})
    return head[:-1] + b',"result":' + result + b"}"


def _drop_confidences(content: dict[str, Any]) -> None:
    for segment in content["segments"]:
        for word in segment["words"]:
            word.pop("confidence", None)


def _drop_emotions(content: dict[str, Any]) -> None:
    for segment in content["segments"]:
        segment.pop("emotion", None)
