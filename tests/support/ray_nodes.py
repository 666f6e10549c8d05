"""A Ray cluster of several nodes on this machine, in a process of its own: `ray.cluster_utils.Cluster`.

As a program it makes the nodes that its argument tells (JSON, the head first), prints the addresses, and for each line
of its input adds a node, kills one, or kills the head and starts it anew. To Ray the nodes are as real as machines;
their cores and GPUs are numbers only.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from serve_app.cli.child_process import end_session, free_port, session_members
from tests.support.leaks import WATCH
from tests.support.process import REPLICA, ROOT, clean_environment, titled

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE_BYTES = 200_000_000
SERVE = "/api/serve/applications/"
RESTART, LOSE = "restart", "lose "
"""The lines that ask for a new head, and for the end of the node that is named behind."""


class Nodes:
    """The cluster's addresses, and what its dashboard tells."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, environment: dict[str, str]) -> None:
        self._process = process
        self._folder = folder
        told = self._read()
        self.address: str = told["address"]
        self.environment = environment
        """For programs that join."""
        headers = {"authorization": f"Bearer {Path(environment['RAY_AUTH_TOKEN_PATH']).read_text()}"}
        self._http = httpx.Client(base_url=told["dashboard"], timeout=20, trust_env=False, headers=headers)
        self.ids: dict[str, str] = told["ids"]
        """A node's name to its id."""

    def add(self, name: str, **resources: int) -> None:
        self._ask(json.dumps({"name": name, **resources}))

    def restart_head(self) -> None:
        """Kill -9 all that the head started, and start it again where it was."""
        self._ask(RESTART)

    def lose(self, name: str) -> None:
        """Kill -9 all that a node started."""
        self._ask(LOSE + name)

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self.ids |= self._read()["ids"]

    def replicas(self) -> dict[str, list[str]]:
        """By deployment, the names of the nodes that its running replicas are on."""
        names = {node_id: name for name, node_id in self.ids.items()}
        return {
            name: sorted(names[each["node_id"]] for each in part["replicas"] if each["state"] == "RUNNING")
            for application in self._applications()
            for name, part in application["deployments"].items()
        }

    def serve_runs(self) -> bool:
        """Serve answers, and says that all is as it should be."""
        try:
            return {application["status"] for application in self._applications()} == {"RUNNING"}
        except httpx.HTTPError:
            return False

    def _applications(self) -> list[dict[str, Any]]:
        answer = self._http.get(SERVE)
        answer.raise_for_status()
        return list(answer.json()["applications"].values())

    def posts(self) -> dict[str, int]:
        """By ingress replica, the jobs that were posted at it, as its access log tells."""
        logs = self._folder.glob("ray/session_2*/logs/serve/replica_*_Ingress_*.log")
        return {
            log.stem: log.read_text(errors="replace").count("POST /api/upload-video/process-video 200") for log in logs
        }

    def actors(self, kind: str) -> list[str]:
        """The names of the nodes that the living actors of a class are on."""
        names = {node_id: name for name, node_id in self.ids.items()}
        answer = self._http.get("/api/v0/actors", params={"limit": 1000, "detail": "1"})
        answer.raise_for_status()
        actors = answer.json()["data"]["result"]["result"]
        return [names[each["node_id"]] for each in actors if (each["class_name"], each["state"]) == (kind, "ALIVE")]

    def processes(self, deployment: str) -> list[int]:
        """Of a deployment's replicas, by the titles that Ray gives them."""
        return titled(session_members(self._process.pid), REPLICA.format(deployment))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """End the client; the cluster ends with its process."""
        self._http.close()


@contextmanager
def running_nodes(*nodes: dict[str, Any], environment: dict[str, str]) -> Iterator[Nodes]:
    """The cluster, while the context is open. `environment` is what its processes inherit beside ours."""
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    (folder / "token").write_text(secrets.token_hex(32))
    own = clean_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.ray_nodes", str(folder), json.dumps(nodes)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | own | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        running = Nodes(process, folder, own)
        yield running
        WATCH.running(folder)
        running.close()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        end_session(process.pid)
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Machines:
    """The nodes' side of it, in the program that is the cluster."""

    def __init__(self, folder: str, head: dict[str, Any]) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_TMPDIR"] = (
            folder  # where Ray notes the newest cluster's address, whatever the node's own folder
        )
        Path(folder, "ray").mkdir(exist_ok=True)
        self._head = head
        self._port = free_port()
        self._for_head = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": self._port}
        self._for_head |= {"gcs_server_port": free_port(), "temp_dir": f"{folder}/ray"}
        self._cluster = Cluster(shutdown_at_exit=True)
        self._nodes: dict[str, Any] = {}
        self.add(**head, **self._for_head)

    def add(self, name: str, **options: Any) -> None:
        self._nodes[name] = self._cluster.add_node(object_store_memory=OBJECT_STORE_BYTES, **options)

    def lose(self, name: str) -> None:
        for _kind, process in self._nodes[name].live_processes():
            process.kill()
            process.wait()

    def restart_head(self) -> None:
        self.lose(self._head["name"])
        self._cluster.head_node = None
        self.add(**self._head, **self._for_head)

    def told(self) -> dict[str, Any]:
        ids = {name: node.node_id for name, node in self._nodes.items()}
        return {"address": self._cluster.address, "dashboard": f"http://127.0.0.1:{self._port}", "ids": ids}

    def do(self, line: str) -> None:
        if line == RESTART:
            self.restart_head()
        elif line.startswith(LOSE):
            self.lose(line.removeprefix(LOSE))
        else:
            self.add(**json.loads(line))


def main(folder: str, nodes: str) -> None:
    """Be the cluster until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # Ray prints, too
    head, *others = json.loads(nodes)
    machines = _Machines(folder, head)
    for node in others:
        machines.add(**node)
    print(json.dumps(machines.told()), file=out, flush=True)
    for line in sys.stdin:
        machines.do(line.strip())
        print(json.dumps(machines.told()), file=out, flush=True)
    machines._cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
