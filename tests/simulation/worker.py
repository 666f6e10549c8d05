"""Runs seeds in a process of its own, and prints a line of JSON about each."""

from __future__ import annotations

import gc
import hashlib
import json
import signal
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.mutants import apply
from tests.simulation.virtual_time import real_steady

if TYPE_CHECKING:
    from collections.abc import Sequence

REAL_S = 120
"""A seed that takes longer does not end."""


def work(arguments: Sequence[str]) -> None:
    """`arguments`: first seed, number of seeds, step between, whether to tell all, a mutant, a kind, a folder."""
    first, count, step, tells, mutant, kind, folder = arguments
    if mutant:
        apply(mutant)
    from tests.simulation.story import plan_of
    from tests.simulation.world import prepare

    template = prepare(Path(folder) / first)
    signal.signal(signal.SIGALRM, _give_up)
    for seed in range(int(first), int(first) + int(count) * int(step), int(step)):
        if kind in {"", plan_of(seed, Random(f"story {seed}")).kind}:
            print(json.dumps(run_seed(seed, template, tells=tells == "all")), flush=True)


def run_seed(seed: int, template: Path, *, tells: bool) -> dict[str, object]:
    """Run one seed; return what was violated, a digest of all that was seen, and if it `tells`, the history."""
    from tests.simulation import checker, history
    from tests.simulation.story import Story

    began = real_steady()
    story = Story(seed, template)
    counts: Counter[str] = Counter()
    signal.alarm(REAL_S)
    try:
        story.run()
        found = [str(each) for each in checker.violations(story)]
        counts = checker.summary(story)
    except Exception as error:  # noqa: BLE001 - a fault of the simulator is found, too
        found = [f"simulator: {type(error).__name__}: {error}"]
    signal.alarm(0)
    told = history.lines(story)
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    counts["real ms"] = round(1000 * (real_steady() - began))
    del story
    gc.collect()
    return {"seed": seed, "found": found, "digest": digest, "counts": counts, "history": told if tells else []}


def _give_up(*_: object) -> None:
    raise TimeoutError("takes too long")
