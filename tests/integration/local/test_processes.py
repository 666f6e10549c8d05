"""What the processes of a running server have in common: their environment, and what none of them loads."""

from contextlib import suppress
from pathlib import Path

GRAPH = "ray::(ServeController|ProxyActor|ServeReplica|JobManager|IDLE)"
BY_PYANNOTE = "ray::ServeReplica:[^:]*:Diarizer"
"""pyannote.audio needs pandas."""


def read(pid: int, name: str) -> bytes:
    """A file of the process; nothing where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def test_no_process_compiles_what_it_imports(server):
    """The fixture's environment says PYTHONDONTWRITEBYTECODE; no process of the graph is told so."""
    found = server.processes("ray::")
    assert len(found) >= 10
    for pid in found:
        assert b"PYTHONDONTWRITEBYTECODE" not in read(pid, "environ")


def test_no_process_loads_pandas(server):
    """Serve imports it where it is installed: a second of each process's start on a slow machine."""
    found = set(server.processes(GRAPH)) - set(server.processes(BY_PYANNOTE))
    assert len(found) >= 9
    assert not [pid for pid in found if b"/pandas/" in read(pid, "maps")]
