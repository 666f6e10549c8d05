"""The console behind Serve's own proxy and the proxy guard: files, and a stream that flows."""

from __future__ import annotations

import json
import time

import httpx

from tests.support.leaks import WATCH


def test_e1_the_files_come_through_the_proxy(server):
    """E1: the page and its parts, and a 304 for who has them already."""
    page = server.http.get("/console/")
    assert (page.status_code, "script-src 'self'" in page.headers["content-security-policy"]) == (200, True)
    assert server.http.get("/console").headers["location"] == "console/"
    again = server.http.get(
        "/console/main.js", headers={"If-None-Match": server.http.get("/console/main.js").headers["etag"]}
    )
    assert again.status_code == 304


def test_e1_changes_flow_through_the_proxy(server, sources, short):
    """E1: a listener sees a job begin, come along and end while it does, over as many streams as that takes."""
    job_id, told, opened = None, [], 0
    deadline = time.monotonic() + 60
    while not told or told[-1]["status"] != "completed":
        with httpx.stream("GET", f"{server.url}/api/upload-video/jobs/events", trust_env=False, timeout=30) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                assert time.monotonic() < deadline, told
                opened += line == "event: open"
                if opened and job_id is None:
                    job_id = server.start(sources.file(short))
                if line.startswith("data: ") and (job := json.loads(line[6:])).get("job_id") == job_id:
                    told.append(job)
                    if job["status"] == "completed":
                        break
    WATCH.look("answer", "GET /api/upload-video/jobs/events", json.dumps(told))
    assert told[0]["status"] in {"accepted", "processing"}
    assert len(told) >= 2
    assert (told[-1]["stage"], told[-1]["progress"]) == ("done", 100)
    assert told[-1]["duration"] > 0
