"""On which node the actors of jobs run: not on a head that offers no cores.

They claim no core, so that no job waits for one that replicas hold, and Ray would put such actors anywhere: ten drivers
are 1.4 GB on a machine that an operator has kept free for the cluster's own state.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def strategy() -> NodeAffinitySchedulingStrategy | str:
    """For the options of an actor: one of the nodes with cores, by chance.

    Hard, since Ray 2.60 does not heed a soft affinity of actors without resources (measured). Where the node is lost,
    so is the actor, and who looks after it makes another one: the ingress the manager, the manager a driver.
    """
    return beside(ray.nodes())  # type: ignore[no-untyped-call]


def beside(nodes: Sequence[Mapping[str, Any]]) -> NodeAffinitySchedulingStrategy | str:
    """The strategy for what `ray.nodes()` tells: Ray's default where all living nodes have cores, or none has."""
    living = [node for node in nodes if node["Alive"]]
    with_cores = [node["NodeID"] for node in living if node["Resources"].get("CPU")]
    if not with_cores or len(with_cores) == len(living):
        return "DEFAULT"
    return NodeAffinitySchedulingStrategy(random.choice(with_cores), soft=False)  # noqa: S311 - spreads
