"""The whole server on a virtual clock, broken in all ways by seeds: what the outside sees keeps the contract."""

from __future__ import annotations

import pytest

from tests.simulation.command import runs
from tests.simulation.mutants import MUTANTS

pytestmark = pytest.mark.timeout(900)

SEEDS = [99, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]
EXPECTED = (
    "post accepted",
    "post unknown",
    "rerun accepted",
    "cancel ending",
    "cancel deleted",
    "redeliver redelivered",
    "ends",
)
"""Of the counts: what has to have happened at least once."""


@pytest.mark.parametrize("seeds", SEEDS)
def test_seeds_find_nothing(seeds):
    """No seed finds a violation, and together they reach what they are meant to break."""
    results = list(runs(1, seeds, cores=2))
    assert {result["seed"]: result["found"] for result in results if result["found"]} == {}
    counts = {name: sum(result["counts"].get(name, 0) for result in results) for name in EXPECTED}
    assert len(results) == seeds
    assert {name: count for name, count in counts.items() if not count} == {}


def test_same_seed_same_run():
    """All that is seen of a run is the same to the byte, whichever process runs it and whatever ran before."""
    first, second = ({result["seed"]: result["digest"] for result in runs(40, 4, cores=cores)} for cores in (1, 2))
    assert first == second
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize("name", MUTANTS)
def test_faults_are_still_there_to_be_put_in(name):
    """Each change of a fault fits the code as it is: else the table of what the simulator sees is of another code."""
    for change in MUTANTS[name]:
        assert change.path.read_text(encoding="utf-8").count(change.before) == 1


def test_a_fault_is_found():
    """Where jobs leave their audio to the manager, a seed finds it there after their end."""
    results = runs(1, 60, cores=2, mutant="audio not discarded by the job")
    assert any(each.startswith("left audio") for result in results for each in result["found"])
