"""What the processes of a running server have in common: their environment, and what none of them loads."""

from pathlib import Path

GRAPH = "ray::(ServeController|ProxyActor|ServeReplica|JobManager|IDLE)"


def test_no_process_compiles_what_it_imports(server):
    """The fixture's environment says PYTHONDONTWRITEBYTECODE; no process of the graph is told so."""
    found = server.processes("ray::")
    assert len(found) >= 10
    for pid in found:
        assert b"PYTHONDONTWRITEBYTECODE" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_no_process_loads_pandas(server):
    """Serve imports it where it is installed: a second of each process's start on a slow machine."""
    found = server.processes(GRAPH)
    assert len(found) >= 10
    assert not [pid for pid in found if "pandas" in Path(f"/proc/{pid}/maps").read_text()]
