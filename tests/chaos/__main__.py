"""The checker: a real server under harm, and what became of its jobs.

    python -m tests.chaos --seed N --minutes M [--jobs K] [--keep FOLDER]

Ends with a markdown table, and with 1 where something happened that must never happen. A seed repeats what is done and
in which order, not what comes of it: processes are as fast as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.report import heading, say
from tests.chaos.campaign import Plan, run
from tests.chaos.checker import violations
from tests.chaos.report import report


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="at the most")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one POST to the next, in the mean")
    parser.add_argument("--keep", type=Path, help="where the server's database and log stay for a look; short, for Ray")
    chosen = parser.parse_args()
    plan = Plan(seed=chosen.seed, seconds=60 * chosen.minutes, jobs=chosen.jobs, every_s=chosen.every)
    campaign = run(plan, chosen.keep)
    found = violations(campaign.history)
    say(f"{heading()}.\n\n{report(campaign, found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
