"""Keeps processes that have imported what a job actor needs, so that no job waits for the start of its process.

Ray gives an idle process to an actor whose runtime environment equals that of the process. So job actors have one that
names `job_actor.prepare_process` as its setup hook, and idle processes with it are started ahead: by `PrestartWorkers`,
which raylets take from Ray's own libraries (ray-project/ray#48677, Ray 2.60), since no public call does it. Where that
fails, job actors start as late as without it.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import ray
from ray.runtime_env import RuntimeEnv

from deployments import logs
from serve_app.lean_imports import HOOK_VARIABLE

HOOK: Final = "serve_app.orchestration.job_actor.prepare_process"
KEEP_S: Final = 1800
"""After this time Ray ends a process that was not used; another takes its place."""
CALL_S: Final = 10.0
START_S: Final = 30.0
"""How long a process that was asked for may take to appear before another one is asked for."""
PROC: Final = Path("/proc")
STARTING: Final = b"default_worker.py"
"""Part of the command line of a process of Ray until it can take an actor, and is called `IDLE`."""
IDLE: Final = b"ray::IDLE"

log = logs.get_logger("manager")


def environment() -> dict[str, Any]:
    """Return the runtime environment of job actors: that of the calling actor, and the hook."""
    own: Any = ray.get_runtime_context().runtime_env
    return {**own.to_dict(), "env_vars": {**own.env_vars(), HOOK_VARIABLE: HOOK}}


class SpareProcesses:
    """The spare processes on this process's node; Linux only. Blocking: call it from a thread of a Ray actor."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted if PROC.is_dir() else 0
        self._works = True
        self._asked_at_s = -math.inf

    def idle(self) -> int:
        """Return how many can take an actor at once."""
        return sum(IDLE in title for title in self._titles()) if self._wanted else 0

    def fill(self) -> None:
        """Have as many started as are missing. Logs a failure, and then tries no more."""
        missing = self._wanted - len(self._titles()) if self._works else 0
        if missing <= 0:
            self._asked_at_s = -math.inf
        if missing <= 0 or time.monotonic() - self._asked_at_s < START_S:
            return
        self._asked_at_s = time.monotonic()
        try:
            _prestart(missing)
        except Exception:
            self._works = False
            log.exception("no processes are started ahead: jobs start later")

    @staticmethod
    def _titles() -> list[bytes]:
        """Return the command lines of the spare processes: children of the raylet, as this process is one."""
        titles = (_title(folder) for folder in PROC.iterdir() if folder.name.isdigit())
        return [title for title in titles if IDLE in title or STARTING in title]


def _title(process: Path) -> bytes:
    """Return the command line of a process that is this one's sibling and has the hook; nothing of any other."""
    try:
        parent = int(process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[1])
        if parent != os.getppid() or f"{HOOK_VARIABLE}={HOOK}".encode() not in process.joinpath("environ").read_bytes():
            return b""
        return process.joinpath("cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def _prestart(count: int) -> None:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

    generated: Any = SimpleNamespace(**vars(common_pb2) | vars(node_manager_pb2) | vars(node_manager_pb2_grpc))
    here = ray.get_runtime_context()
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    node = next(node for node in nodes if node["NodeID"] == here.get_node_id())
    request = generated.PrestartWorkersRequest(
        language=generated.Language.PYTHON,
        num_workers=count,
        keep_alive_duration_secs=KEEP_S,
        job_id=bytes.fromhex(here.get_job_id()),
    )
    request.runtime_env_info.serialized_runtime_env = RuntimeEnv(**environment()).serialize()
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        generated.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=CALL_S)
