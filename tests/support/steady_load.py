"""Keeps jobs in flight while a test does harm, and writes down how each of them fares.

Looks into the database, which answers whatever else is down. Knows nothing of what is done to the server meanwhile.
"""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
from sqlalchemy import select

from serve_app.jobs.job import Job
from serve_app.storage.database import Database
from serve_app.storage.tables import jobs, results
from tests.support.customer import NOT_ANSWERED, Customer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Select, Table

    from tests.support.backend import Backend
    from tests.support.customer import Posted

LOOK_EVERY_S = 0.2
POST_TIMEOUT_S = 10
NEW_COLUMNS = {"token", "custom_metadata", "callback_headers", "speakers"}
"""Columns that a database of the release before does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All rows of the load at one moment."""

    at: float
    rows: dict[str, Job]


class SteadyLoad:
    """`in_flight` jobs at the server `url`, from threads of its own, until `finish`."""

    def __init__(
        self,
        url: str,
        database_url: str,
        video_url: str,
        backend: Backend,
        *,
        in_flight: int,
        every_s: float = math.inf,
        post_timeout_s: float = POST_TIMEOUT_S,
    ) -> None:
        """`every_s`: one more is posted whenever so long none was, however many are in flight."""
        self._database = Database(database_url)
        self._backend = backend
        self._in_flight = in_flight
        self._every_s = every_s
        each_anew = httpx.Limits(max_keepalive_connections=0)  # several proxies may listen on one port
        self._http = httpx.Client(base_url=url, timeout=post_timeout_s, trust_env=False, limits=each_anew)
        self._content = {"video_url": video_url, "fastapi_base_url": backend.url, "language": "en"}
        self._customer = Customer(self._post)
        self._posting = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.looks: list[Look] = []
        self.answers: list[tuple[int, str | None]] = []
        """Status and Retry-After of each POST's answer; `NOT_ANSWERED` and the error's name where none came."""

    def __enter__(self) -> Self:
        self._posting.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._customer.give_up()
        self._http.close()
        self._database.close()

    @property
    def accepted(self) -> set[str]:
        """Ids that the server has answered for: none of them may be lost."""
        return {order.job_id for order in list(self._customer.posted) if order.answered_at is not None}

    def _post(self, order: Posted) -> httpx.Response:
        try:
            content = {"job_id": order.job_id, **self._content}
            answer = self._http.post("/api/upload-video/process-video", json=content)
        except httpx.HTTPError as error:
            self.answers.append((NOT_ANSWERED, type(error).__name__))
            raise
        self.answers.append((answer.status_code, answer.headers.get("retry-after")))
        return answer

    def _keep(self) -> None:
        ordered_at = time.monotonic()
        while not self._closing.wait(LOOK_EVERY_S):
            with self._database.read() as db:
                found = db.execute(self._ours(jobs)).mappings()
                rows = {row["job_id"]: Job.of({**row, "token": ""}) for row in found}
            self.looks.append(Look(at=time.monotonic(), rows=rows))
            ended = sum(job.state.ended for job in rows.values())
            if self._posting.is_set():
                due = time.monotonic() - ordered_at > self._every_s
                for _ in range(max(due, self._in_flight + ended - len(self._customer.posted))):
                    self._customer.order()
                    ordered_at = time.monotonic()

    def _ours(self, table: Table) -> Select[Any]:
        """Their rows, as far as a database of the release before has them."""
        columns = (column for column in table.c if column.name not in NEW_COLUMNS)
        return select(*columns).where(table.c.job_id.in_([order.job_id for order in self._customer.posted]))

    def wait(self, true: Callable[[list[Job]], bool], *, within_s: float) -> float:
        """Until the newest look is `true`; the seconds that it took."""
        began = time.monotonic()
        while not (self.looks and true(list(self.looks[-1].rows.values()))):
            now = {job.job_id[:8]: (job.state, job.stage, job.progress, job.attempt) for job in self.running()}
            assert time.monotonic() - began < within_s, now
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began

    def running(self) -> list[Job]:
        rows = self.looks[-1].rows.values() if self.looks else ()
        return [job for job in rows if job.state == "running"]

    def finish(self, *, within_s: float) -> float:
        """Post no more, and wait until all have ended and their ends were told; the seconds that it took."""
        self._posting.clear()
        began = time.monotonic()
        while self._customer.unanswered:
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

    def all_resumed_s(self, since: float, *, within_s: float) -> list[float]:
        """Wait until all of them did so, and none has failed; see `resumed_s`."""
        while max(found := self.resumed_s(since), default=0) > within_s:
            assert time.monotonic() < since + within_s, found
            time.sleep(LOOK_EVERY_S)
        assert "failed" not in {job.state for job in self.looks[-1].rows.values()}
        return found

    def check(self, *, may_fail: str | None = None) -> None:
        """None lost, none failed but with the code `may_fail`, none told twice, and the same text for all."""
        with self._database.read() as db:
            stored = {row["job_id"]: json.loads(row["body"]) for row in db.execute(self._ours(results)).mappings()}
        states = {job_id: str(job.state) for job_id, job in self.looks[-1].rows.items()}
        failed = {job_id for job_id, job in self.looks[-1].rows.items() if may_fail and job.error_code == may_fail}
        assert states == dict.fromkeys(self.accepted, "completed") | dict.fromkeys(failed, "failed"), states
        texts = {result["text"] for result in stored.values()}
        assert len(texts) == 1, texts
        for job_id in self.accepted:
            ends = [got for got in self._backend.of(job_id) if got.ended]
            assert len({(got.message_id, got.raw) for got in ends}) == 1
            assert ends[-1].body.get("result") == stored.get(job_id)


def goes_on(before: Job, now: Job) -> bool:
    """A stage has done something since, or a new attempt works."""
    if now.state.ended or now.progress > before.progress:
        return True
    return now.attempt > before.attempt and now.spent_s > before.spent_s
