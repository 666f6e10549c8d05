"""Structured logs from every process: JSON lines that carry the job's id, and no secrets.

Ray Serve captures only the `ray.serve` logger tree, so all loggers sit under it. Ray strips a field called `job_id`
(its own word for a driver program), so ours is called `ecg_job_id`. Whoever writes a line, it holds no traceback of
Python's, which shows paths and whatever the errors say, but `trace`: the errors, and the functions they came through.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from deployments.errors import MLServerError

ROOT = "ray.serve"
JOB_FIELD = "ecg_job_id"
LOG_FILE_VARIABLE = "ML_SERVER_LOG_FILE"
"""Where set, every process appends its lines to this one file: `ml-server up` sets it and shows the file."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RAYS_OWN = frozenset(
    (
        *("job_id", "worker_id", "node_id", "actor_id", "actor_name", "task_id", "task_name", "task_func_name"),
        *("log_to_stderr", "skip_context_filter", "component_name", "timestamp_ns"),
    )
)
"""What Ray puts into every record of a worker, and which is in its own logs."""


_QUERY = re.compile(r"(\w+://[^\s\"'<>?#]*)[?#][^\s\"'<>]*")
_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/\"':]+/)+")


def get_logger(name: str) -> logging.Logger:
    """A logger whose lines reach Serve's log files."""
    logger = logging.getLogger(f"{ROOT}.{name}")
    logger.addFilter(_traced)
    return logger


def trace(error: BaseException) -> list[str]:
    """`error` and what it came from, each with its functions, innermost first: no folder, no query of a URL."""
    told = []
    seen: BaseException | None = error
    while seen is not None:
        frames = traceback.extract_tb(seen.__traceback__)
        at = [f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in reversed(frames)]
        told.append(" < ".join([f"{type(seen).__name__}: {_said(seen)}", *at]))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return told


def _said(error: BaseException) -> str:
    """What an error says, in a line. Ray's errors of a call say its whole stack, of which the last line counts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    is_stack = any(line.startswith(("Traceback (", 'File "')) for line in lines)
    return _PATH.sub("…/", without_queries(lines[-1] if is_stack else " ".join(lines)))


def without_queries(text: str) -> str:
    """`text` with the URLs in it cut before their query: a presigned URL's is a secret."""
    return _QUERY.sub(r"\1?…", text)


def _traced(record: logging.LogRecord) -> bool:
    """Put `trace` where a traceback would be."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        vars(record)["trace"] = trace(error)
    record.exc_info = record.exc_text = None
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """Of the errors that cross Serve, those that nobody raised on purpose. Callers tell the rest."""
    on_purpose = record.exc_info is not None and isinstance(record.exc_info[1], MLServerError)
    return not on_purpose and _traced(record)


def about(job_id: str, **fields: Any) -> dict[str, Any]:
    """The `extra=` of a log call about a job."""
    return {JOB_FIELD: job_id, **fields}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever came in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name.removeprefix(ROOT + "."),
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD | _RAYS_OWN}
        clean = {key: without_queries(value) if isinstance(value, str) else value for key, value in line.items()}
        return json.dumps(clean, ensure_ascii=False, default=lambda value: without_queries(str(value)))


def _is_ours(record: logging.LogRecord) -> bool:
    """Serve's own lines are in its own files; here only where something is wrong."""
    return record.name != ROOT or record.levelno >= logging.WARNING


def configure(*, level: str = "INFO") -> None:
    """Give this process our lines: into the file that the environment names, else to stderr. Safe to call twice."""
    root = logging.getLogger(ROOT)
    root.setLevel(level)
    root.addFilter(_is_news)
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        return
    path = os.environ.get(LOG_FILE_VARIABLE)
    handler: logging.Handler
    handler = logging.handlers.WatchedFileHandler(path) if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_is_ours)
    root.addHandler(handler)
