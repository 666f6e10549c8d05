"""The canonical log line of a run's end, whether its job actor, the manager or a request ended it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deployments import logs

if TYPE_CHECKING:
    from serve_app.jobs.job import Job, Outcome

log = logs.get_logger("jobs")


def log_end(job: Job, outcome: Outcome, *, seconds: float = 0.0) -> None:
    """Log the one line per ended run that has everything one may want to count by; `seconds` is its processing time."""
    fields: dict[str, Any] = {
        "run": job.run,
        "attempt": job.attempt,
        "state": outcome.state.value,
        "error_code": outcome.error_code,
        "waited_s": round((job.started_at or time.time()) - job.queued_at, 3),
        "seconds": round(seconds, 3),
        "video_s": round(outcome.duration_s, 3),
        "language": job.options.language,
    }
    log.info("job ended", extra=logs.about(job.job_id, **fields))
