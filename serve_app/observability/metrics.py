"""The server's own metrics for Prometheus; those of its stages are in `deployments/metrics.py`.

Jobs and terminal callbacks are counted from the database by the manager (`serve_app/observability/job_metrics.py`),
progress callbacks by their senders (`serve_app/callbacks/progress_tally.py`), answers by Serve's proxies
(`serve_app/api/proxy_guard.py`).
"""

from __future__ import annotations

import re

from deployments import errors
from deployments import metrics as stages
from deployments.metrics import Counter, Gauge, Histogram, Metric
from deployments.warnings import WarningCode
from serve_app.jobs.stages import TimedStage
from serve_app.jobs.states import JobState

UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
CODES = frozenset(error.code for error in errors.JobError.__subclasses__())
NO_CODE = "none"
"""In place of an error code, for a job that completed."""
OUTCOMES = ("delivered", "to_be_retried", "given_up")
PROGRESS_OUTCOMES = ("delivered", "failed", "superseded", "circuit_open")
"""The last two were not sent: a newer callback of the job exists, or the circuit breaker holds the receiver back."""
FAULTS = ("none", "unreachable", "timeout", "cut_off", "not_allowed", "http_3xx", "http_4xx", "http_5xx")
ROUTES = {
    "process-video": r"/api/upload-video/process-video",
    "status": r"/api/upload-video/status/[^/]+",
    "jobs": r"/api/upload-video/jobs",
    "job": r"/api/upload-video/jobs/[^/]+",
    "of-a-job": r"/api/upload-video/jobs/[^/]+/.+",
    "health": r"/health",
    "pages": r"/|/docs(?:/.*)?|/openapi\.json|/console(?:/.*)?",
}
STATUSES = (
    *("200", "202", "304", "307"),
    *("400", "401", "403", "404", "405", "408", "409", "413", "429", "431"),
    *("500", "503"),
)

JOBS = Gauge("jobs", "Jobs in the database.", state=JobState)
JOBS_LIMIT = Gauge(
    "jobs_limit", "How many jobs may be in this state; beyond both, a POST is answered 503.", state=UNFINISHED
)
OLDEST_QUEUED_S = Gauge("oldest_queued_seconds", "How long the first job has waited in the queue; 0 where it is empty.")
PENDING_CALLBACKS = Gauge("pending_callbacks", "Terminal callbacks that are not acknowledged yet.")
OLDEST_CALLBACK_S = Gauge(
    "oldest_undelivered_callback_seconds", "Age of the oldest callback that is not acknowledged; 0 where there is none."
)
MANAGER_SEEN_S = Gauge("manager_seen_timestamp_seconds", "When the manager last read the database, epoch seconds.")

JOBS_ENDED = Counter(
    "jobs_ended", "Runs that ended.", state=(JobState.COMPLETED, JobState.FAILED), code=(NO_CODE, *CODES)
)
QUEUE_WAIT_S = Histogram(
    "queue_wait_seconds", "From the POST to a slot.", upto=(1, 5, 15, 60, 300, 900, 1800, 3600, 7200)
)
STAGE_S = Histogram(
    "stage_seconds",
    "How long a stage of a completed job took; stages overlap.",
    upto=(0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 1800),
    stage=TimedStage,
)
REAL_TIME_FACTOR = Histogram(
    "real_time_factor",
    "Seconds of processing for a second of video, of completed jobs.",
    upto=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5, 10),
)
VIDEO_S = Counter("video_seconds", "Length of the videos of completed jobs.")
PROCESSING_S = Counter("processing_seconds", "Processing time of completed jobs.")
DROPPED_TEXTS = Counter(
    "dropped_texts",
    "Texts of the recogniser that completed jobs leave out or cut: as hallucinated or repeated (guard), or as not heard"
    " in the sound (aligner).",
    by=("guard", "aligner"),
)
DROPPED_BY = {
    WarningCode.SILENT_TEXT_DROPPED: "guard",
    WarningCode.PHANTOM_DROPPED: "guard",
    WarningCode.LOOP_CUT: "guard",
    WarningCode.REPEATED_TEXT_DROPPED: "guard",
    WarningCode.UNHEARD_DROPPED: "aligner",
}
"""The warnings whose `count` says how many texts were left out or cut, and the label that they are counted by."""
CALLBACK_TRIES = Counter("callback_tries", "Tries of terminal callbacks.", outcome=OUTCOMES, fault=FAULTS)
PROGRESS_TRIES = Counter(
    "progress_tries",
    "Tries of progress callbacks, and those dropped for a newer callback or by the circuit breaker.",
    outcome=PROGRESS_OUTCOMES,
    fault=FAULTS,
)

ANSWER_S = Histogram(
    "answer_seconds",
    "From a whole request to the first byte of the answer.",
    upto=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    route=ROUTES,
)
ANSWERS = Counter("answers", "Answers to requests.", route=ROUTES, status=STATUSES)

ALL: tuple[Metric, ...] = (
    *(JOBS, JOBS_LIMIT, OLDEST_QUEUED_S, PENDING_CALLBACKS, OLDEST_CALLBACK_S, MANAGER_SEEN_S),
    *(JOBS_ENDED, QUEUE_WAIT_S, STAGE_S, REAL_TIME_FACTOR, VIDEO_S, PROCESSING_S, DROPPED_TEXTS, CALLBACK_TRIES),
    *(PROGRESS_TRIES, ANSWER_S, ANSWERS),
    *stages.ALL,
)
"""Every metric that this server exports."""


def route_of(path: str) -> str:
    """Return the name in `ROUTES` of a request's path, `other` where there is none."""
    return next((name for name, pattern in ROUTES.items() if re.fullmatch(pattern, path)), stages.OTHER)


def fault_class(error: str | None) -> str:
    """Return the class of a callback's error: `http_5xx` for `http_503`, `none` for no error."""
    return re.sub(r"^http_(\d)\d\d$", r"http_\1xx", error) if error else "none"
