from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deployments.errors import CancelledJobError, DownloadError, InternalJobError
from tests.chaos.checker import comparable, duplicates, violations
from tests.chaos.history import Fault, History, Row, Seen
from tests.chaos.recovery import recoveries
from tests.support.backend import Received
from tests.support.customer import Posted

RESULT = {"text": "hi", "segments": [], "metadata": {"device": "cpu", "processing_time": 1.0, "stages": {"a": 1}}}


def seen(at: float, state: str, progress: int, **numbers: int) -> Seen:
    known = {"run": 1, "attempt": 1, "sequence": int(at)} | numbers
    return Seen(job_id="a", at=at, state=state, progress=progress, **known)


def got(
    at: float, sequence: int, status: str = "processing", *, name: str = "", ok: bool = True, **fields: object
) -> Received:
    body = {"job_id": "a", "status": status, "progress": 100 if status == "completed" else 10} | fields
    raw = json.dumps(body).encode()
    headers = {"webhook-id": name or f"m{sequence}", "x-ml-sequence": str(sequence)}
    return Received(at, path="", headers=headers, raw=raw, answered=200, acknowledged=ok)


FINAL = got(4, 4, "completed", result=RESULT)


def good(**replaced: object) -> History:
    """A job that went well: queued, running, killed once, completed, told twice."""
    whole = History(
        posted=[Posted(job_id="a", video="v", answered_at=0.0)],
        seen=[
            seen(0, "queued", 0, attempt=0),
            seen(1, "running", 10),
            seen(2, "running", 10, attempt=2),
            seen(3, "running", 40, attempt=2),
            seen(4, "completed", 100, attempt=2),
        ],
        rows=[row()],
        got=[got(1, 1), got(2, 2, ok=False), got(3, 3), replace(FINAL, acknowledged=False), FINAL],
        faults=[Fault(kind="kill", target="driver", at=1.5, until=1.5)],
        references={"v": comparable(RESULT) | {"metadata": {"device": "cpu", "processing_time": 9.0}}},
    )
    return replace(whole, **replaced)


def row(**replaced: object) -> Row:
    fields = {"state": "completed", "run": 1, "attempt": 2, "error_code": None, "result": json.dumps(RESULT).encode()}
    return Row(**{"job_id": "a", "callbacks": [("m4", "delivered")], **fields} | replaced)


def kinds(history: History) -> list[str]:
    return [violation.kind for violation in violations(history)]


def failed(code: str, **fields: object) -> dict[str, object]:
    end = got(4, 4, "failed", error_code=code)
    return {"got": [got(1, 1), end], "rows": [row(state="failed", result=None, error_code=code, **fields)], "seen": []}


def test_d11_a_history_without_fault_has_no_violations():
    """What is allowed is not called wrong: a killed attempt, a duplicate of the same bytes, other timings."""
    assert violations(good()) == []
    assert duplicates(good().got) == 1


VIOLATED = {
    "lost: no row": ("lost", {"rows": []}),
    "lost: never ended": ("lost", {"rows": [row(state="running", result=None, callbacks=[])]}),
    "lost: nothing owed": ("lost", {"rows": [row(callbacks=[])], "got": []}),
    "lost: still owed": ("lost", {"rows": [row(callbacks=[("m4", "pending")])]}),
    "lost: delivered to nobody": ("lost", {"got": [replace(FINAL, acknowledged=False)]}),
    "lost: no result": ("lost", {"rows": [row(result=None)], "got": [got(4, 4, "failed")]}),
    "doubled: two ends told": ("doubled", {"got": [FINAL, got(5, 5, "completed", result=RESULT)]}),
    "doubled: two ends owed": ("doubled", {"rows": [row(callbacks=[("m4", "delivered"), ("m5", "undelivered")])]}),
    "doubled: told and stored differ": ("doubled", {"got": [got(4, 4, "completed", result=RESULT | {"text": "ho"})]}),
    "doubled: told completed, stored failed": (
        "doubled",
        {"rows": [row(state="failed", result=None, error_code=InternalJobError.code, attempt=3)]},
    ),
    "illegal: out of an end": ("illegal", {"seen": [seen(1, "completed", 100), seen(2, "running", 100)]}),
    "illegal: back to the queue": ("illegal", {"seen": [seen(1, "running", 5), seen(2, "queued", 5)]}),
    "illegal: progress falls": ("illegal", {"seen": [seen(1, "running", 50), seen(2, "running", 40)]}),
    "illegal: attempts fall": ("illegal", {"seen": [seen(1, "running", 5, attempt=2), seen(2, "running", 5)]}),
    "illegal: written after the end": (
        "illegal",
        {"seen": [seen(1, "completed", 100), seen(2, "completed", 100, sequence=9)]},
    ),
    "illegal: run after completed": ("illegal", {"seen": [seen(1, "completed", 100), seen(2, "queued", 0, run=2)]}),
    "illegal: status takes an end back": (
        "illegal",
        {"seen": [Seen(job_id="a", at=at, state=state, progress=0) for at, state in ((1, "completed"), (2, "failed"))]},
    ),
    "illegal: a number twice": ("illegal", {"got": [got(1, 1), got(2, 1, name="other"), FINAL]}),
    "illegal: numbers fall": ("illegal", {"got": [got(1, 3), got(2, 2), FINAL]}),
    "illegal: the end has a low number": ("illegal", {"got": [got(1, 7), FINAL]}),
    "late: progress after the end": ("late", {"got": [FINAL, got(5, 5)]}),
    "late: old progress, nobody stopped": ("late", {"got": [FINAL, got(50, 3)], "faults": []}),
    "changed: other bytes": ("changed", {"got": [got(1, 1, name="x"), got(2, 1, name="x", progress=20), FINAL]}),
    "unequal: another video's words": ("unequal", {"references": {"v": RESULT | {"text": "bye"}}}),
    "failed: without reason": ("failed", failed(DownloadError.code)),
    "failed: cancelled by nobody": ("failed", failed(CancelledJobError.code)),
    "failed: with attempts left": ("failed", failed(InternalJobError.code, attempt=1)),
}


@pytest.mark.parametrize("name", VIOLATED)
def test_d11_the_checker_can_fail(name):
    """Each thing that must never happen, put into an otherwise good history, is found."""
    kind, change = VIOLATED[name]
    assert kind in kinds(good(**change))


def test_d11_what_is_allowed_is_not_called_wrong():
    """Unanswered posts promise nothing; cancelled jobs and worn-out ones may fail; stopped processes may speak late."""
    assert kinds(good(posted=[Posted(job_id="a", video="v", answered_at=None)], rows=[], got=[], seen=[])) == []
    cancelled = [Posted(job_id="a", video="v", answered_at=0.0, cancelled=True)]
    assert kinds(good(posted=cancelled, **failed(CancelledJobError.code))) == []
    assert kinds(good(**failed(InternalJobError.code, attempt=4))) == []
    stop = [Fault(kind="stop", target="driver", at=3, until=6)]
    assert kinds(good(faults=stop, got=[FINAL, got(7, 3)])) == []
    again = [seen(1, "failed", 5), seen(2, "running", 0, run=2, attempt=1)]
    assert kinds(good(seen=again)) == []


def test_d11_recovery_is_told_of_the_job_that_was_hit():
    """From the kill of a driver to the next new progress of the job whose attempt rose."""
    other = [replace(each, job_id="b", attempt=1) for each in good().seen]
    (line,) = recoveries(good(seen=sorted([*good().seen, *other], key=lambda each: each.at)))
    assert (line.faults, line.jobs, line.median_s, line.longest_s) == (1, 1, 1.5, 1.5)
