"""D11: the checker itself, for a short while."""

from __future__ import annotations

from tests.chaos.campaign import Plan, run
from tests.chaos.checker import violations
from tests.chaos.report import report

OPENING = (
    ("kill", "driver"),
    ("backend", "resets"),
    ("kill", "manager"),
    ("kill", "Transcriber"),
    ("cancel", "job"),
    ("stop", "driver"),
)
PLAN = Plan(
    seed=7,
    seconds=15,
    jobs=12,
    every_s=1.0,
    videos=2,
    server_ends_every_s=None,
    opening=OPENING,
    mood="brisk",
    patience_s=3,
    settle_s=120,
)


def test_d11_jobs_under_a_nemesis_are_neither_lost_nor_doubled():
    """A seeded run: jobs, kills, stops, resets, a cancel; lost 0, doubled 0, illegal state changes 0."""
    campaign = run(PLAN)
    found = violations(campaign.history)
    print(report(campaign, found))
    assert found == []
    assert campaign.failed_starts == 0
    assert len(campaign.history.rows) > PLAN.jobs // 2
    assert sum(fault.kind in {"kill", "stop"} for fault in campaign.history.faults) >= 2
