"""Keeps jobs in flight while a test does harm, and writes down how each of them fares.

Posts as the ECG Backend does: what was not answered is posted again under the same id. Looks into the database, which
answers whatever else is down. Knows nothing of what is done to the server meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
from sqlalchemy import select

from serve_app.jobs.job import Job
from serve_app.storage.database import Database
from serve_app.storage.tables import jobs, results

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.backend import Backend

LOOK_EVERY_S = 0.2
POST_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All rows of the load at one moment."""

    at: float
    rows: dict[str, Job]


class SteadyLoad:
    """`in_flight` jobs at the server `url`, from a thread of its own, until `finish`.

    `told` is what has to be the same in all results.
    """

    def __init__(
        self,
        url: str,
        database_url: str,
        video_url: str,
        backend: Backend,
        *,
        in_flight: int,
        told: Callable[[dict[str, Any]], str] | None = None,
    ) -> None:
        self._told = told or as_told
        self._url = url
        self._database = Database(database_url)
        self._content = {"video_url": video_url, "fastapi_base_url": backend.url, "language": "en"}
        self._backend = backend
        self._in_flight = in_flight
        self._made: set[str] = set()
        self._open: set[str] = set()
        self._posting = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.accepted: set[str] = set()
        """Ids that the server has answered for: none of them may be lost."""
        self.looks: list[Look] = []

    def __enter__(self) -> Self:
        self._posting.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._database.close()

    def _keep(self) -> None:
        each_anew = httpx.Limits(max_keepalive_connections=0)  # several proxies may listen on one port
        with httpx.Client(timeout=POST_TIMEOUT_S, trust_env=False, limits=each_anew) as http:
            while not self._closing.wait(LOOK_EVERY_S):
                rows = self._look()
                self._open = {job_id for job_id in self._open if job_id not in rows or not rows[job_id].state.ended}
                if self._posting.is_set():
                    new = {str(uuid.uuid4()) for _ in range(self._in_flight - len(self._open))}
                    self._made |= new
                    self._open |= new
                for job_id in self._open - self.accepted:
                    self._post(http, job_id)

    def _look(self) -> dict[str, Job]:
        with self._database.read() as db:
            ours = select(jobs).where(jobs.c.job_id.in_(self._made))
            rows = {row["job_id"]: Job.of(row) for row in db.execute(ours).mappings()}
        self.looks.append(Look(at=time.monotonic(), rows=rows))
        return rows

    def _post(self, http: httpx.Client, job_id: str) -> None:
        try:
            answer = http.post(f"{self._url}/api/upload-video/process-video", json={"job_id": job_id, **self._content})
        except httpx.HTTPError:
            return
        if answer.status_code == httpx.codes.OK:
            self.accepted.add(job_id)

    def wait(self, true: Callable[[list[Job]], bool], *, within_s: float) -> float:
        """Until the newest look is `true`; the seconds that it took."""
        began = time.monotonic()
        while not (self.looks and true(list(self.looks[-1].rows.values()))):
            now = {job.job_id[:8]: (job.state, job.stage, job.progress, job.attempt) for job in self.running()}
            assert time.monotonic() - began < within_s, now
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began

    def running(self) -> list[Job]:
        """As of the newest look."""
        rows = self.looks[-1].rows.values() if self.looks else ()
        return [job for job in rows if job.state == "running"]

    def finish(self, *, within_s: float) -> float:
        """Post no more, and wait until all have ended and their ends were told; the seconds that it took."""
        self._posting.clear()
        began = time.monotonic()
        while any(job_id not in self.accepted for job_id in tuple(self._open)):
            assert time.monotonic() - began < within_s, "posts are not answered"
            time.sleep(LOOK_EVERY_S)
        for job_id in self.accepted:
            self._backend.wait_end(job_id, within_s=within_s)
        self.wait(lambda rows: {job.job_id for job in rows if job.state.ended} >= self.accepted, within_s=within_s)
        return time.monotonic() - began

    def resumed_s(self, since: float, *, ready_at: float | None = None) -> list[float]:
        """For each job that ran at `since`, the seconds from `ready_at` (or `since`) until it was seen to go on."""
        before = [look for look in self.looks if look.at <= since][-1]
        after = [look for look in self.looks if look.at > since]
        found = []
        for job in before.rows.values():
            if job.state == "running":
                at = next((look.at for look in after if goes_on(job, look.rows[job.job_id])), float("inf"))
                found.append(max(0.0, at - (ready_at or since)))
        return found

    def all_resumed_s(self, since: float, *, ready_at: float | None = None, within_s: float) -> list[float]:
        """Wait until all of them did so, and none has failed; see `resumed_s`."""
        deadline = (ready_at or since) + within_s
        while max(found := self.resumed_s(since, ready_at=ready_at), default=0) > within_s:
            assert time.monotonic() < deadline, found
            time.sleep(LOOK_EVERY_S)
        assert "failed" not in {job.state for job in self.looks[-1].rows.values()}
        return found

    def check(self) -> None:
        """None lost, none failed, none told twice, and the same result for all."""
        with self._database.read() as db:
            ours = select(results.c.job_id, results.c.body).where(results.c.job_id.in_(self._made))
            stored = {row[0]: row[1] for row in db.execute(ours)}
        states = {job_id: str(job.state) for job_id, job in self.looks[-1].rows.items()}
        assert states == dict.fromkeys(self.accepted, "completed"), states
        told = {self._told(json.loads(body)) for body in stored.values()}
        assert len(told) == 1, told
        for job_id in self.accepted:
            ends = [got for got in self._backend.of(job_id) if got.ended]
            assert len({(got.headers["webhook-id"], got.raw) for got in ends}) == 1
            assert ends[-1].body["result"] == json.loads(stored[job_id])


def goes_on(before: Job, now: Job) -> bool:
    """A stage has done something since, or a new attempt works."""
    if now.state.ended or now.progress > before.progress:
        return True
    return now.attempt > before.attempt and now.spent_s > before.spent_s


def as_told(result: dict[str, Any]) -> str:
    """A result without what differs from run to run."""
    metadata = {name: value for name, value in result["metadata"].items() if name not in {"processing_time", "stages"}}
    return json.dumps(result | {"metadata": metadata}, sort_keys=True)
