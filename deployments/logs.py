"""Structured logs from every process: JSON lines that carry the job's id, and no secrets.

Ray Serve captures only the `ray.serve` logger tree, so all loggers are children of it. Ray strips a field called
`job_id` (its own word for a driver program), so ours is called `ecg_job_id`. Lines have no traceback of Python's, which
would show paths and unfiltered messages, but a field `trace`: the errors and the functions that they passed through.
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
from typing import TYPE_CHECKING, Any

from deployments.errors import MLServerError

if TYPE_CHECKING:
    from types import FrameType

ROOT = "ray.serve"
JOB_FIELD = "ecg_job_id"
LOG_FILE_VARIABLE = "ML_SERVER_LOG_FILE"
"""If set, every process appends its lines to this file: `ml-server up` sets it and shows the file."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RAYS_OWN = frozenset(
    (
        *("job_id", "worker_id", "node_id", "actor_id", "actor_name", "task_id", "task_name", "task_func_name"),
        *("log_to_stderr", "skip_context_filter", "component_name", "timestamp_ns"),
    )
)
"""Fields that Ray adds to every record of a worker; they are in Ray's own logs."""


_QUERY = re.compile(r"(\w+://[^\s\"'<>?#]*)[?#][^\s\"'<>]*")
_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/\"':]+/)+")


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose lines reach Serve's log files."""
    logger = logging.getLogger(f"{ROOT}.{name}")
    logger.addFilter(_with_trace)
    return logger


def trace(error: BaseException) -> list[str]:
    """Return a line for `error` and for each of its causes, with their functions, innermost first.

    The lines have no folders and no queries of URLs.
    """
    lines = []
    seen: BaseException | None = error
    while seen is not None:
        at = _functions(traceback.extract_tb(seen.__traceback__))
        lines.append(" < ".join([f"{type(seen).__name__}: {_message(seen)}", *at]))
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return lines


def stack(frame: FrameType | None) -> str:
    """Return the functions that a thread is in, innermost first, without folders."""
    return " < ".join(_functions(traceback.extract_stack(frame)))


def _functions(frames: traceback.StackSummary) -> list[str]:
    return [f"{Path(frame.filename).stem}.{frame.name}:{frame.lineno}" for frame in reversed(frames)]


def _message(error: BaseException) -> str:
    """Return an error's message in one line. Of Ray's errors, whose message is a whole stack, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    is_stack = any(line.startswith(("Traceback (", 'File "')) for line in lines)
    return _PATH.sub("…/", without_queries(lines[-1] if is_stack else " ".join(lines)))


def without_queries(text: str) -> str:
    """Return `text` with the queries of its URLs cut: that of a presigned URL is a secret."""
    return _QUERY.sub(r"\1?…", text)


def _with_trace(record: logging.LogRecord) -> bool:
    """Replace the traceback of `record` by a field `trace`."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        vars(record)["trace"] = trace(error)
    record.exc_info = record.exc_text = None
    return True


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Let pass Serve's records of errors that were not raised on purpose: callers log the others."""
    on_purpose = record.exc_info is not None and isinstance(record.exc_info[1], MLServerError)
    return not on_purpose and _with_trace(record)


def about(job_id: str, **fields: Any) -> dict[str, Any]:
    """Return the `extra=` of a log call about a job."""
    return {JOB_FIELD: job_id, **fields}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, process, message and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
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


def _is_ours_or_a_warning(record: logging.LogRecord) -> bool:
    """Let pass our own records and Serve's warnings: the rest of Serve's is in its own files."""
    return record.name != ROOT or record.levelno >= logging.WARNING


def configure(*, level: str = "INFO") -> None:
    """Write this process's lines to the file that the environment names, else to stderr. Safe to call twice."""
    root = logging.getLogger(ROOT)
    root.setLevel(level)
    root.addFilter(_is_unexpected)
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        return
    path = os.environ.get(LOG_FILE_VARIABLE)
    handler: logging.Handler
    handler = logging.handlers.WatchedFileHandler(path) if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_is_ours_or_a_warning)
    root.addHandler(handler)
