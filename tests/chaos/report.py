"""A campaign as markdown: the counts that must be 0, what was allowed, what was done, how long jobs stood still."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.benchmarks.report import table
from tests.chaos.checker import KINDS, Violation, duplicates
from tests.chaos.nemesis import told
from tests.chaos.recovery import recoveries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.campaign import Campaign

SHOWN = 20
"""Violations in words."""


def report(campaign: Campaign, found: Sequence[Violation]) -> str:
    plan, history = campaign.plan, campaign.history
    states = Counter(row.error_code or row.state for row in history.rows)
    counts = Counter(violation.kind for violation in found)
    answered = sum(posted.answered_at is not None for posted in history.posted)
    ends = ", ".join(f"{state} {count}" for state, count in sorted(states.items()))
    did = ", ".join(f"{what} {count}" for what, count in sorted(campaign.backend_did.items()))
    rows: list[tuple[object, object]] = [
        ("jobs posted, answered", f"{len(history.posted)}, {answered}"),
        ("ends", ends),
        *((f"**{kind}**", f"**{counts[kind]}**") for kind in KINDS),
        ("callbacks received", len(history.got)),
        ("duplicates (same id, same bytes)", duplicates(history.got)),
        ("what the backend did", did),
        ("faults", f"{len(history.faults)}: {told(history.faults)}"),
        ("starts of the server that failed", campaign.failed_starts),
        ("from peace to the last end and callback", f"{campaign.settled_s:.1f} s"),
        ("callbacks whose clock was moved in the end", campaign.hurried),
    ]
    parts = [
        f"Seed {plan.seed}, {plan.seconds / 60:g} minutes of harm.\n",
        table(["", ""], rows),
        "",
        table(["fault", "of", "times", "jobs hit", "median, s", "longest, s"], _recovery_rows(campaign)),
    ]
    words = [f"- {violation.kind} {violation.job_id}: {violation.detail}" for violation in found[:SHOWN]]
    return "\n".join([*parts, *([""] if words else []), *words])


def _recovery_rows(campaign: Campaign) -> list[list[object]]:
    return [
        [line.kind, line.target, line.faults, line.jobs, _seconds(line.median_s), _seconds(line.longest_s)]
        for line in recoveries(campaign.history)
        if line.kind in {"kill", "stop"}
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
