from __future__ import annotations

from typing import Any

import pytest

from serve_app.app import build
from serve_app.orchestration.placement import DatabaseOutOfReachError, check_reach, strategy_for
from serve_app.settings import Settings

A, B = "a" * 56, "b" * 56
"""Ray's names are long."""


def node(name: str, *, cores: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cores, "memory": 1.0} if cores else {"memory": 1.0}}


def test_a_head_without_cores_is_left_alone() -> None:
    """Jobs' actors go to the living nodes with cores, all of them in time."""
    nodes = [node("0" * 56), node(A, cores=4), node(B, cores=2), node("c" * 56, cores=8, alive=False)]
    chosen = [strategy_for(nodes) for _ in range(50)]
    assert {each.node_id for each in chosen if not isinstance(each, str)} == {A, B}


def test_else_ray_decides() -> None:
    """One machine, nodes that are all alike, and a cluster without any core."""
    assert strategy_for([node("a", cores=4)]) == "DEFAULT"
    assert strategy_for([node("a", cores=4), node("b", cores=1)]) == "DEFAULT"
    assert strategy_for([node("head"), node("b")]) == "DEFAULT"


@pytest.mark.parametrize(("hosts", "refused"), [("aa", ""), ("ab", "a, b"), ("a", "")])
def test_d14_sqlite_is_refused_on_several_machines(monkeypatch: pytest.MonkeyPatch, hosts: str, refused: str) -> None:
    """D14: ingress and manager could be on different ones, with a file each; PostgreSQL and one machine are fine."""
    nodes = [{"NodeManagerHostname": host, "Alive": True} for host in hosts]
    nodes.append({"NodeManagerHostname": "lost", "Alive": False})
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    check_reach("postgresql://db/ml")
    if refused:
        with pytest.raises(
            DatabaseOutOfReachError, match=r"SQLite cannot be shared by 2 machines \(a, b\).*ML_SERVER_DATABASE_URL"
        ):
            check_reach("sqlite:////state/ml-server.db")
    else:
        check_reach("sqlite:////state/ml-server.db")


def test_d14_the_app_is_not_built_over_sqlite_on_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """D14: said where the app is built, which is what `ml-server up` and `serve deploy` show."""
    nodes = [{"NodeManagerHostname": host, "Alive": True} for host in "ab"]
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    with pytest.raises(DatabaseOutOfReachError):
        build(Settings(profile="local"))
