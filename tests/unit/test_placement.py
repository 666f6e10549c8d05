from __future__ import annotations

from typing import Any

from serve_app.jobs.placement import beside

A, B = "a" * 56, "b" * 56
"""Ray's names are long."""


def node(name: str, *, cores: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cores, "memory": 1.0} if cores else {"memory": 1.0}}


def test_a_head_without_cores_is_left_alone() -> None:
    """Jobs' actors go to the living nodes with cores, all of them in time."""
    nodes = [node("0" * 56), node(A, cores=4), node(B, cores=2), node("c" * 56, cores=8, alive=False)]
    chosen = [beside(nodes) for _ in range(50)]
    assert {each.node_id for each in chosen if not isinstance(each, str)} == {A, B}


def test_else_ray_decides() -> None:
    """One machine, nodes that are all alike, and a cluster without any core."""
    assert beside([node("a", cores=4)]) == "DEFAULT"
    assert beside([node("a", cores=4), node("b", cores=1)]) == "DEFAULT"
    assert beside([node("head"), node("b")]) == "DEFAULT"
