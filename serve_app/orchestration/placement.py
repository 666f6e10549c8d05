"""How the manager and the job actors are created, and on which node: not on a head that offers no cores.

They claim no core, so that no job waits for one that replicas hold, and Ray would place such actors anywhere: ten of
them take 1.4 GB on a machine that an operator has kept free for the cluster's own state.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def detached(node_id: str | None = None) -> dict[str, Any]:
    """Return the options of an actor that is found where it exists, outlives its creator and is restarted by Ray.

    `node_id`: the node to place it on; None: as `strategy_for` chooses.
    Its node is a hard affinity, since Ray 2.60 ignores a soft one for actors without resources (measured). If the node
    is lost, the ingress makes the manager again, and the manager a job actor.
    """
    options = {"lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "num_cpus": 0}
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    chosen = strategy_for(nodes) if node_id is None else NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {**options, "scheduling_strategy": chosen}


def nodes_with_cores() -> int:
    """Return how many living nodes have cores, at least 1."""
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    return max(1, sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in nodes))


def strategy_for(nodes: Sequence[Mapping[str, Any]]) -> NodeAffinitySchedulingStrategy | str:
    """Return one of the nodes with cores, at random; Ray's default where all living nodes have cores, or none."""
    living = [node for node in nodes if node["Alive"]]
    with_cores = [node["NodeID"] for node in living if node["Resources"].get("CPU")]
    if not with_cores or len(with_cores) == len(living):
        return "DEFAULT"
    return NodeAffinitySchedulingStrategy(random.choice(with_cores), soft=False)  # noqa: S311 - spreads


class DatabaseOutOfReachError(Exception):
    """The database is a file on one machine, and the server's processes may be on several."""


def check_reach(database_url: str) -> None:
    """Raise `DatabaseOutOfReachError` for SQLite on a cluster of several machines: each would have its own jobs."""
    if database_url.startswith("sqlite") and ray.is_initialized():
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        machines = sorted({node["NodeManagerHostname"] for node in nodes if node["Alive"]})
        if len(machines) > 1:
            raise DatabaseOutOfReachError(
                f"SQLite cannot be shared by {len(machines)} machines ({', '.join(machines)}):"
                " set ML_SERVER_DATABASE_URL to a PostgreSQL database that all of them reach"
            )
