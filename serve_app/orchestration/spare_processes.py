"""Keeps processes that have imported what a job actor needs, so that no job waits for the start of its process.

Ray gives an idle process to an actor whose runtime environment equals that of the process. So job actors have one that
names `job_actor.prepare_process` as its setup hook, and idle processes with it are started ahead: by `PrestartWorkers`,
which raylets take from Ray's own libraries (ray-project/ray#48677, Ray 2.60), since no public call does it. Where that
fails, job actors start as late as without it.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import ray
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.runtime_env import RuntimeEnv

import deployments
import serve_app
from deployments import logs
from serve_app.lean_imports import HOOK_VARIABLE

if TYPE_CHECKING:
    from serve_app.settings import Settings

HOOK: Final = "serve_app.orchestration.job_actor.prepare_process"
"""Must stay importable in the next release: an actor that Ray restarts after an update has this one's environment."""
RELEASE_VARIABLE: Final = "SPARE_PROCESS_RELEASE"
"""In the environment of job actors: a process that has imported another release's code fits none of this one's."""
KEEP_S: Final = 1800
"""After this time Ray may end a process that was not used; another takes its place."""
CALL_S: Final = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 30.0, 600.0
"""How long a process that was asked for may take to appear before another is asked for; doubled until one is used."""
MOST_FRUITLESS: Final = 3
"""So often a process may be asked for without one to be seen: then none is asked for any more."""
PROC: Final = Path("/proc")
STARTING: Final = b"default_worker.py"
"""Part of the command line of a process of Ray at its very start; then it is called `IDLE` until it has an actor."""
IDLE: Final = b"ray::IDLE"
JOB_ACTOR: Final = b"ray::JobActor"

log = logs.get_logger("manager")


def environment(release: str) -> dict[str, Any]:
    """Return the runtime environment of job actors: that of the calling actor, with the hook and the `release`."""
    own: Any = ray.get_runtime_context().runtime_env
    return {**own.to_dict(), "env_vars": {**own.env_vars(), HOOK_VARIABLE: HOOK, RELEASE_VARIABLE: release}}


def release_of(settings: Settings) -> str:
    """Return a text that differs between settings, and between states of the installed code (its newest change)."""
    packages = (Path(serve_app.__path__[0]), Path(deployments.__path__[0]))
    changed_s = max(module.stat().st_mtime for package in packages for module in package.rglob("*.py"))
    return f"{settings.identity}-{changed_s:.0f}"


class SpareProcesses:
    """The spare processes on this process's node; Linux only. Blocking: call it from a thread of a Ray actor."""

    def __init__(self, wanted: int, release: str) -> None:
        """`release`: of code and settings; processes of another one are not counted."""
        self._wanted = wanted if PROC.is_dir() else 0
        self._release = release
        self._asked_at_s = -math.inf
        self._wait_s = 0.0
        self._fruitless = 0

    def count(self) -> tuple[int, int]:
        """Return how many have no actor yet, and how many job actors this node has; zeros where none is wanted."""
        titles = self._titles() if self._wanted else []
        return sum(IDLE in title for title in titles), sum(JOB_ACTOR in title for title in titles)

    def was_used(self) -> None:
        """Have the next one asked for at once."""
        self._wait_s = 0.0

    def fill(self) -> None:
        """Have as many started as are missing. Logs why that fails; gives up where none ever appears."""
        found = sum(IDLE in title or STARTING in title for title in self._titles()) if self._wanted else 0
        self._fruitless = 0 if found else self._fruitless
        missing = self._wanted - found
        if missing <= 0 or time.monotonic() - self._asked_at_s < self._wait_s or self._fruitless >= MOST_FRUITLESS:
            return
        self._asked_at_s = time.monotonic()
        self._wait_s = min(max(FIRST_WAIT_S, 2 * self._wait_s), LONGEST_WAIT_S)
        self._fruitless += 1
        try:
            _prestart(missing, self._release)
        except Exception:
            log.exception("no process was started ahead: jobs start later")

    def _titles(self) -> list[bytes]:
        """Return the command lines of the raylet's children, as this process is one, that have our environment."""
        return [_title(folder, self._release) for folder in PROC.iterdir() if folder.name.isdigit()]


def _title(process: Path, release: str) -> bytes:
    """Return the command line of this process's sibling with the hook and the release; nothing of any other process."""
    try:
        parent = int(process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[1])
        if parent != os.getppid():
            return b""
        variables = process.joinpath("environ").read_bytes().split(b"\0")
        if not {f"{HOOK_VARIABLE}={HOOK}".encode(), f"{RELEASE_VARIABLE}={release}".encode()} <= set(variables):
            return b""
        return process.joinpath("cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def _prestart(count: int, release: str) -> None:
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
    request.runtime_env_info.serialized_runtime_env = _serialized(environment(release))
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", GLOBAL_GRPC_OPTIONS) as channel:
        generated.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=CALL_S)


def _serialized(wanted: dict[str, Any]) -> str:
    """Return the environment as Ray writes that of an actor: raylets compare the texts.

    Where the calling actor has an environment of its own, Ray's core merges both and writes JSON without spaces.
    """
    if ray.get_runtime_context().runtime_env.to_dict():
        return json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(RuntimeEnv(**wanted).serialize())
