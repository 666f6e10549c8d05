"""Delivery over the wire: retries, dead and slow backends, cancel."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import pairwise

from tests.support import servers
from tests.support.backend import Backend

LATE_S = 5
"""A second is promised, on a machine that has nothing else to do; a try of progress may take 20."""


def after(failures: int, status: int = 500):
    """Terminal callbacks get `status` so many times, then 200."""

    def answer(new, before) -> int:
        tries = sum(got.ended for got in before)
        return status if new.ended and tries < failures else 200

    return answer


def test_w3_500_twice_then_200(server, sources):
    """W3: the same callback, byte for byte and under the same id, until it is acknowledged; then no more."""
    with Backend(after(2)) as backend:
        job_id = server.start(sources.serve(servers.status(404)), fastapi_base_url=backend.url)
        backend.wait_end(job_id, within_s=40)
        tries = [got for got in backend.of(job_id) if got.ended]
        assert [got.answered for got in tries] == [500, 500, 200]
        assert len({got.raw for got in tries}) == 1
        assert len({got.headers["webhook-id"] for got in tries}) == 1
        waits = [later.at - earlier.at for earlier, later in pairwise(tries)]
        assert 0.7 < waits[0] < 4
        assert 3.9 < waits[1] < 9
        time.sleep(1.5)
        assert len([got for got in backend.of(job_id) if got.ended]) == 3
        callback = server.status(job_id)["callback"]
        assert (callback["state"], callback["attempts"]) == ("delivered", 3)


def test_a_redirect_is_a_failed_try(server, sources):
    """A 3xx is never followed, and tried again."""
    with Backend(after(1, status=308)) as backend:
        job_id = server.start(sources.serve(servers.status(404)), fastapi_base_url=backend.url)
        backend.wait_end(job_id, within_s=20)
        assert [got.answered for got in backend.of(job_id) if got.ended] == [308, 200]


def test_410_stops(server, sources):
    """A receiver that wants no more is not tried again; a redelivery asks it once more."""
    with Backend(lambda new, before: 410 if new.ended and len(before) < 50 else 200) as backend:
        job_id = server.start(sources.serve(servers.status(404)), fastapi_base_url=backend.url)
        backend.wait(job_id, lambda came: any(got.ended for got in came), within_s=20)
        time.sleep(2.5)
        assert sum(got.ended for got in backend.of(job_id)) == 1
        assert server.status(job_id)["callback"]["state"] == "undelivered"
        assert server.http.post(f"/api/upload-video/jobs/{job_id}/redeliver").status_code == 202
        backend.wait(job_id, lambda came: sum(got.ended for got in came) == 2, within_s=10)


def test_a_dead_backend_costs_nothing_but_the_callback(server, sources, short):
    """Nobody listens: the job completes as fast as ever, its result can be looked up, the callback stays owed."""
    job_id = server.start(sources.file(short), fastapi_base_url="http://127.0.0.1:9")
    state = server.wait(job_id, within_s=60)
    assert state["status"] == "completed"
    deadline = time.monotonic() + 30
    while (callback := server.status(job_id)["callback"])["attempts"] == 0 or callback["last_error"] is None:
        assert time.monotonic() < deadline, callback  # the first try is made at once, beside this look
        time.sleep(0.1)
    assert callback["state"] == "pending"
    assert callback["attempts"] >= 1
    assert callback["last_error"] == "unreachable"


def test_w4_hanging_progress_delays_no_end(server, sources, short):
    """W4: a backend that never answers progress still gets the end at once: a try in flight is given up for it."""
    with Backend(lambda new, _: 200 if new.ended else 0) as backend:
        job_id = server.start(sources.file(short), fastapi_base_url=backend.url)
        end = backend.wait_end(job_id, within_s=60)
        came_at = time.time() - (time.monotonic() - end.at)
        finished = server.status(job_id)
        assert finished["status"] == "completed"
        assert end.body["progress"] == 100
        assert came_at - datetime.fromisoformat(finished["finished_at"]).timestamp() < LATE_S
        assert finished["callback"]["state"] in {"delivered", "pending"}


def test_a_running_job_is_cancelled(server, sources, backend):
    """202; the work stops within seconds, the slot is free, the job ends as CANCELLED and says so."""
    job_id = server.start(sources.serve(servers.dripping()), fastapi_base_url=backend.url)
    server.wait(job_id, "processing")
    backend.wait(job_id, lambda came: len(came) >= 1, within_s=20)
    before = time.monotonic()
    assert server.cancel(job_id).status_code == 202
    end = backend.wait_end(job_id, within_s=10)
    assert time.monotonic() - before < 8
    assert end.body["error_code"] == "CANCELLED"
    assert server.http.get("/health").json()["jobs"]["running"] == 0
    assert server.cancel(job_id).status_code == 200
    assert server.http.get(f"/api/upload-video/status/{job_id}").status_code == 404


def test_a_job_is_cancelled_in_the_middle_of_its_computing(server, sources, backend, conversation):
    """The same while replicas decode: the end comes within seconds, and the next job is served."""
    job_id = server.start(sources.file(conversation), fastapi_base_url=backend.url)
    backend.wait(job_id, lambda came: any(got.body["progress"] >= 40 for got in came), within_s=60)
    before = time.monotonic()
    server.cancel(job_id)
    assert backend.wait_end(job_id, within_s=10).body["error_code"] == "CANCELLED"
    assert time.monotonic() - before < 8


def test_a_new_run_after_a_failure(server, sources, backend):
    """The same job_id after a failure runs again, with rising callback numbers; other content is a conflict."""
    url = sources.serve(servers.status(404))
    job_id = server.start(url, fastapi_base_url=backend.url)
    first = backend.wait_end(job_id)
    assert (
        server.post(url.replace("tell", "told"), job_id=job_id, fastapi_base_url=backend.url).json()["status"]
        == "processing"
    )
    came = backend.wait(job_id, lambda came: sum(got.ended for got in came) == 2, within_s=20)
    assert came[-1].sequence > first.sequence
    assert server.post(url, job_id=job_id, language="en").status_code == 409
