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


class DatabaseOutOfReachError(Exception):
    """The database is a file on one machine, and the server's processes may be on several."""


def check_reach(database_url: str) -> None:
    """Raise `DatabaseOutOfReachError` for SQLite on a cluster: each machine would have jobs of its own."""
    if database_url.startswith("sqlite") and ray.is_initialized():
        machines = machines_of(ray.nodes())  # type: ignore[no-untyped-call]
        if len(machines) > 1:
            raise DatabaseOutOfReachError(
                f"SQLite cannot be shared by {len(machines)} machines ({', '.join(machines)}):"
                " set ML_SERVER_DATABASE_URL to a PostgreSQL database that all of them reach"
            )


def machines_of(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of those that live; several nodes of one machine share its disk."""
    return sorted({node["NodeManagerHostname"] for node in nodes if node["Alive"]})
