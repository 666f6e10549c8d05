"""Structured logs from every process: JSON lines that carry the job's id.

Ray Serve captures only the `ray.serve` logger tree, so all loggers sit under it. Ray strips a field called `job_id`
(its own word for a driver program), so ours is called `ecg_job_id`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import time
from typing import Any

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


def get_logger(name: str) -> logging.Logger:
    """A logger whose lines reach Serve's log files."""
    return logging.getLogger(f"{ROOT}.{name}")


def about(job_id: str, **fields: Any) -> dict[str, Any]:
    """The `extra=` of a log call about a job."""
    return {JOB_FIELD: job_id, **fields}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, whatever came in `extra`, and the traceback if any."""

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
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _is_ours(record: logging.LogRecord) -> bool:
    """Serve's own lines are in its own files; here only where something is wrong."""
    return record.name != ROOT or record.levelno >= logging.WARNING


def configure(*, level: str = "INFO") -> None:
    """Give this process our lines: into the file that the environment names, else to stderr. Safe to call twice."""
    root = logging.getLogger(ROOT)
    root.setLevel(level)
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        return
    path = os.environ.get(LOG_FILE_VARIABLE)
    handler: logging.Handler
    handler = logging.handlers.WatchedFileHandler(path) if path else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_is_ours)
    root.addHandler(handler)
