"""Jobs for a store under test: one to submit, and one that an attempt works on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serve_app.jobs.job import Attempt, JobOptions, NewJob, Outcome

if TYPE_CHECKING:
    from serve_app.jobs.job import Job
    from serve_app.orchestration.opening import Stores

CALLBACK_URL = "http://127.0.0.1:9/result"
"""Where nothing listens."""
_MOMENTS = itertools.count()
DONE = Outcome(result=b'{"text":"","segments":[]}', duration_s=1.0, processing_s=2.0)
BROKEN = Outcome(error_code="DOWNLOAD_ERROR", error_message="no")


def new_job(job_id: str = "a", callback_url: str | None = None, **fields: Any) -> NewJob:
    """A job whose end is sent to `callback_url`; `fields` are others of `NewJob`."""
    url = "https://v/1.mp4?X-Amz-Signature=secret"
    others = {"video_url": url, "video_expires_at": 2e9, "options": JobOptions(), "fingerprint": "f"} | fields
    return NewJob(job_id=job_id, callback_url=callback_url, **others)


def begin(store: Stores, job_id: str = "a") -> Job | None:
    """Count an attempt at the job's present run, as its actor does."""
    job = store.jobs.fetch_job(job_id)
    assert job is not None
    return store.attempts.begin_attempt(job_id, job.run, job.token, moment(store))


def moment(store: Stores) -> float:
    """Now by the store's clock, which may stand still, and never twice the same: by it an attempt is counted once."""
    return store.attempts._clock() + next(_MOMENTS) * 1e-6


def attempt_of(store: Stores, job_id: str, number: int) -> Attempt:
    """One of the attempts at the job's present run."""
    job = store.jobs.fetch_job(job_id)
    assert job is not None
    return replace(Attempt.of(job), number=number)


def begun(store: Stores, job_id: str = "a") -> Attempt:
    """A new attempt at a job that waits or runs."""
    store.queue.admit_jobs()
    job = begin(store, job_id)
    assert job is not None
    return Attempt.of(job)


def started(store: Stores, job_id: str = "a", callback_url: str | None = None, **fields: Any) -> Attempt:
    """The first attempt at a new job."""
    store.jobs.submit_job(new_job(job_id, callback_url, **fields))
    return begun(store, job_id)
