"""Progress callbacks of a job actor are counted where the count stays."""

from __future__ import annotations

from serve_app.callbacks import progress_tally
from serve_app.callbacks.progress_tally import ProgressTally, count_all


def test_a_report_has_what_came_since_the_last_one(monkeypatch):
    """The first try is reported at once, later ones together every five seconds, the rest at the end; none twice."""
    now = 100.0
    monkeypatch.setattr(progress_tally.time, "monotonic", lambda: now)
    reports = []
    tally = ProgressTally(reports.append)
    tally.flush()
    tally.add("delivered")
    for _ in range(3):
        now += 1
        tally.add("failed", "timeout")
    now += 2
    tally.add("superseded")
    tally.add("delivered")
    tally.flush()
    tally.flush()
    assert reports == [
        {("delivered", "none"): 1},
        {("failed", "timeout"): 3, ("superseded", "none"): 1},
        {("delivered", "none"): 1},
    ]


def test_what_is_reported_is_counted(counted):
    """Each try of a report, under its outcome and its fault."""
    count_all({("failed", "http_5xx"): 3, ("delivered", "none"): 2})
    assert counted.total("progress_tries", outcome="failed", fault="http_5xx") == 3
    assert counted.total("progress_tries") == 5
