"""Jobs for a store under test: one to submit, and one that an attempt works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve_app.jobs.job import Attempt, JobOptions, NewJob, Outcome

if TYPE_CHECKING:
    from serve_app.orchestration.opening import Stores

CALLBACK_URL = "http://127.0.0.1:9/result"
"""Where nothing listens."""
DONE = Outcome(result=b'{"text":"","segments":[]}', duration_s=1.0, processing_s=2.0)
BROKEN = Outcome(error_code="DOWNLOAD_ERROR", error_message="no")


def new_job(job_id: str = "a", callback_url: str | None = None, **fields: Any) -> NewJob:
    """A job whose end is sent to `callback_url`; `fields` are others of `NewJob`."""
    url = "https://v/1.mp4?X-Amz-Signature=secret"
    others = {"video_url": url, "video_expires_at": 2e9, "options": JobOptions(), "fingerprint": "f"} | fields
    return NewJob(job_id=job_id, callback_url=callback_url, **others)


def begun(store: Stores, job_id: str = "a") -> Attempt:
    """A new attempt at a job that waits or runs."""
    store.queue.admit_jobs()
    job = store.jobs.fetch_job(job_id)
    assert job is not None
    begun = store.attempts.begin_attempt(job_id, job.run)
    assert begun is not None
    return Attempt(job_id=job_id, run=begun.run, number=begun.attempt)


def started(store: Stores, job_id: str = "a", callback_url: str | None = None, **fields: Any) -> Attempt:
    """The first attempt at a new job."""
    store.jobs.submit_job(new_job(job_id, callback_url, **fields))
    return begun(store, job_id)
