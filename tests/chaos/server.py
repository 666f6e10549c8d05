"""A server of the checker's own that may die and come back over the same state, and its processes by name."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from serve_app import testing
from serve_app.cli.child_process import ChildProcess, end_session, free_port, session_members
from tests.support.leaks import WATCH
from tests.support.process import REPLICA, ROOT, clean_environment, eventually, titled, wait_healthy
from tests.support.production import SMALL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

API = "/api/upload-video"
SERVE = "/api/serve/applications/"
STAGE_S = (0.15, 1.5)
"""What a stage takes for a job, by chance: kills hit it busy."""
REPLICAS = ("Ingress", *testing.ENGINES)
TITLES = {
    "driver": "ray::JobActor",
    "manager": "ray::JobManager",
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
    "raylet": r"\S*/raylet/raylet",
    **{name: REPLICA.format(name) for name in REPLICAS},
}
"""What the nemesis can name, by the titles that Ray gives processes."""


def local_config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """configs/local.yaml with other `arguments`, every stage in its graph, one replica each."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text(encoding="utf-8"))
    app = config["applications"][0]
    app["args"] |= arguments
    for deployment in app["deployments"]:
        deployment.pop("autoscaling_config", None)
    return config


def fakes_config() -> dict[str, Any]:
    """The same over the shipped fake engines: models are looked for, and not loaded."""
    config = local_config(SMALL | {"transcriber": SMALL["transcriber"] | {"max_chunk_s": 8}, "locale": "en"})
    config["applications"][0]["import_path"] = testing.IMPORT_PATH
    for deployment in config["applications"][0]["deployments"]:
        deployment["ray_actor_options"] = {"num_cpus": 0}
        deployment["health_check_period_s"] = 1  # what is dead is replaced sooner: there are other things to wait for
    return config


class MortalServer:
    """`ml-server up` in a folder. `crash` is kill -9 of all its processes at once; `start` brings it back."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any] | None = None,
        *,
        program: Sequence[str] = (sys.executable, "-m", "serve_app.cli"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state_dir = folder / "state"
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        self.log = self.state_dir / "up.log"
        path = folder / "config.yaml"
        self._config = config or fakes_config()
        path.write_text(yaml.safe_dump(self._config), encoding="utf-8")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.database_url = f"sqlite:///{self.state_dir / 'ml-server.db'}"
        hooks = {"response": [WATCH.answer]}
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False, event_hooks=hooks)
        self._command = [*program, "up", "--config", str(path), "--port", str(port)]
        self._command += ["--state-dir", str(self.state_dir)]
        faults = folder / "faults.json"
        testing.Faults.write(faults, stage_s=STAGE_S)
        extra = {"PYTHONPATH": str(ROOT), testing.FAULTS_VARIABLE: str(faults)}
        self._environment = clean_environment() | extra | dict(environment or {})
        self._process: ChildProcess | None = None
        self.failed_starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        WATCH.running(self.state_dir)
        if self._process:
            self._process.stop()
        WATCH.left(self.state_dir)

    def start(self, tries: int = 1) -> None:
        """Up, until it is healthy, tried again where it does not come up. Raises AssertionError where it never does."""
        for left in reversed(range(tries)):
            process = self._process = ChildProcess(self._command, log_path=self.log, environment=self._environment)
            process.__enter__()
            try:
                wait_healthy(self.url, lambda process=process: process.exit_code is None, self.log)
            except BaseException as error:  # nothing may stay behind, whatever ends this
                self.failed_starts += 1
                self.crash()
                if not left or not isinstance(error, AssertionError):
                    raise
            else:
                return

    def crash(self) -> None:
        """Nothing of it is left but what is on disk."""
        end_session(self._leader)
        self.process.stop()

    @property
    def process(self) -> ChildProcess:
        assert self._process is not None
        return self._process

    @property
    def _leader(self) -> int:
        assert self.process._process is not None
        return self.process._process.pid

    def pids(self, name: str) -> list[int]:
        """The processes of that name in `TITLES`, or of that title, now, of this server only."""
        return titled(session_members(self._leader), TITLES.get(name, name))

    def deploy(self, release: str) -> None:
        """What `serve deploy` does with a file of another release; until Serve has done all."""
        self._config["applications"][0]["args"]["release"] = release
        application = self.put(self._config)
        assert application["status"] == "RUNNING", application["message"]

    def put(self, config: dict[str, Any]) -> dict[str, Any]:
        """What `serve deploy` does with this file; the application in Serve's words, once it deploys no more."""
        config["applications"][0]["args"]["state_dir"] = str(self.state_dir)
        config["http_options"]["port"] = int(self.url.rpartition(":")[2])
        dashboard = re.findall(r"Ray dashboard (http://\S+)", self.log.read_text())[-1]
        token = {"authorization": f"Bearer {(self.state_dir / 'ray-token').read_text()}"}
        with httpx.Client(base_url=dashboard, headers=token, timeout=30, trust_env=False) as http:
            http.put(SERVE, json=config).raise_for_status()
            return eventually(
                lambda: http.get(SERVE).json()["applications"]["ml-server"],
                lambda application: application["status"] != "DEPLOYING",
                within_s=300,
            )

    def post(self, job_id: str, video_url: str, backend_url: str) -> httpx.Response:
        """Ask for a job. Raises httpx.HTTPError where nobody answers."""
        content = {"job_id": job_id, "video_url": video_url, "fastapi_base_url": backend_url}
        return self.http.post(f"{API}/process-video", json=content)

    def status(self, job_id: str) -> httpx.Response:
        return self.http.get(f"{API}/status/{job_id}")

    def cancel(self, job_id: str) -> httpx.Response:
        return self.http.delete(f"{API}/jobs/{job_id}")
