"""The commands as a user gives them: processes, signals, Ray's own tools."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
import yaml

from serve_app.cli.child_process import ChildProcess, free_port
from serve_app.cli.samples import all_samples
from tests.support.commands import BIN, a_ray, call, finish_a_job, short_folder
from tests.support.process import ROOT, RunningServer, eventually, wait_healthy
from tests.support.word_errors import word_error_rate


@pytest.fixture
def state_dir():
    with short_folder() as path:
        yield path


def test_help_teaches():
    """`--help` shows what to type, for the whole and for each command."""
    whole = call(str(BIN / "ml-server"), "--help").stdout
    for words in ("ml-server up", "ml-server submit talk.mp4 --wait", "ml-server demo", "ML_SERVER_CONTRACT_VERSION"):
        assert words in whole
    for command in ("up", "submit", "status", "demo"):
        assert "Usage: ml-server" in call(str(BIN / "ml-server"), command, "--help").stdout


def test_a_config_that_cannot_start_says_why(state_dir):
    """A production config without a callback base: the server does not start, and one sentence says why."""
    text = (ROOT / "serve_config.yaml").read_text().replace("    backend_url: http://ecg-backend:8000\n", "")
    config = state_dir / "config.yaml"
    config.write_text(text)
    failed = call(
        str(BIN / "ml-server"),
        "up",
        "--config",
        str(config),
        "--port",
        str(free_port()),
        "--state-dir",
        str(state_dir),
        FASTAPI_BASE_URL="",
        BACKEND_URL="",
    )
    assert failed.returncode != 0
    assert "no callback base" in failed.stdout + failed.stderr


def on_port(config: Path, folder: Path, port: int) -> Path:
    """A copy of a config that listens elsewhere."""
    copy = folder / config.name
    copy.write_text(config.read_text().replace("port: 8080", f"port: {port}"))
    return copy


def join(port: int, state_dir: Path, environment: dict[str, str]) -> None:
    """`ml-server up --address`: it serves, and SIGTERM takes the server away and leaves Ray as it was."""
    command = [str(BIN / "ml-server"), "up", "--address", environment["RAY_ADDRESS"], "--port", str(port)]
    server = ChildProcess(command, log_path=state_dir / "joined.log", environment=environment)
    with server:
        wait_healthy(f"http://127.0.0.1:{port}", lambda: server.exit_code is None, state_dir / "joined.log")
        server.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while server.exit_code is None:
            assert time.monotonic() < deadline, server.tail()
            time.sleep(0.1)
        assert server.exit_code == 0, server.tail()
    status = call(str(BIN / "serve"), "status", **environment)
    assert status.returncode == 0, status.stdout + status.stderr
    assert "ml-server" not in status.stdout
    actors = call(str(BIN / "ray"), "list", "actors", "--filter", "state=ALIVE", **environment).stdout
    assert "ServeController" in actors
    assert "JobManager" not in actors


@pytest.mark.full
def test_serve_deploy(state_dir):
    """Ray's own way: `ray start --head`, then `serve deploy`."""
    with a_ray(state_dir) as environment:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        config = on_port(ROOT / "configs" / "local.yaml", state_dir, port)
        deployed = call(str(BIN / "serve"), "deploy", str(config), **environment)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        wait_healthy(url, lambda: True, state_dir / "ray.log")
        finish_a_job(url, state_dir)


@pytest.mark.full
def test_up_in_a_ray_and_serve_run(state_dir):
    """Others of Ray's own ways: `ml-server up --address`, and `serve run`."""
    with a_ray(state_dir) as environment:
        join(free_port(), state_dir, environment)
        call(str(BIN / "serve"), "shutdown", "-y", **environment)  # else Serve's proxy stays on this port
        run = ChildProcess(
            [str(BIN / "serve"), "run", "--name", "ml-server", "serve_app.app:build", "profile=local"],
            log_path=state_dir / "run.log",
            environment=environment,
        )
        with run:
            # `serve run` takes no port for a builder: Serve's default is 8000.
            server = RunningServer("http://127.0.0.1:8000", state_dir, run)
            wait_healthy(server.url, lambda: run.exit_code is None, state_dir / "run.log")
            assert server.post("https://10.0.0.1/v.mp4").json()["error"]["code"] == "VIDEO_URL_NOT_ALLOWED"
            server.http.close()


@pytest.mark.full
def test_r1_serve_opens_no_app_to_everybody(state_dir):
    """R1: `serve deploy` and `serve run` of what would be open to all: a clear sentence, and no app behind the port."""
    sentence = "beyond this machine, and serve whoever comes: set auth.mode to keys, or name the clients' networks"
    port = free_port()
    config = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    config["http_options"] |= {"host": "0.0.0.0", "port": port}  # noqa: S104 - what is refused
    path = state_dir / "config.yaml"
    with a_ray(state_dir) as environment:
        token = {"authorization": f"Bearer {(state_dir / 'token').read_text()}"}
        serve = {"base_url": environment["RAY_API_SERVER_ADDRESS"], "headers": token, "trust_env": False, "timeout": 30}
        path.write_text(yaml.safe_dump(config))
        assert call(str(BIN / "serve"), "deploy", str(path), **environment).returncode == 0  # Serve has taken it
        with httpx.Client(**serve) as dashboard:
            app = eventually(
                lambda: dashboard.get("/api/serve/applications/").json()["applications"]["ml-server"],
                lambda app: app["status"] != "DEPLOYING",
            )
        assert (app["status"], app["deployments"]) == ("DEPLOY_FAILED", {})
        assert sentence in app["message"]
        assert_nothing_answers(port)
        run = [str(BIN / "serve"), "run", "--name", "ml-server", "serve_app.app:build", "profile=local"]
        done = call(*run, **environment)
        assert sentence in done.stdout + done.stderr
        assert_nothing_answers(port)
        config["applications"][0]["args"]["auth"] = {"networks": ["127.0.0.0/8"]}  # all that was wrong
        path.write_text(yaml.safe_dump(config))
        assert call(str(BIN / "serve"), "deploy", str(path), **environment).returncode == 0
        wait_healthy(f"http://127.0.0.1:{port}", lambda: True, state_dir / "ray.log")


def assert_nothing_answers(port: int) -> None:
    """Serve's own proxy may listen; no route of ours is behind it, for strangers or for this machine."""
    own = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for address in {"127.0.0.1"} | own:
        for path in ("/health", "/api/upload-video/jobs", "/docs"):
            try:
                answer = httpx.get(f"http://{address}:{port}{path}", trust_env=False, timeout=10)
            except httpx.ConnectError:
                continue
            assert answer.status_code == 404, (address, path, answer.text)


def test_the_demo(state_dir):
    """`ml-server demo` shows both samples from POST to transcript, nearly right, names its engines, and exits 0."""
    done = call(str(BIN / "ml-server"), "demo", "--state-dir", str(state_dir))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ("whisperx-base", "SPEAKER_00", "SPEAKER_01", "Sheila"):
        assert words in done.stdout
    results = [json.loads(Path(path).read_text()) for path in re.findall(r"Full result: (\S+)", done.stdout)]
    for sample, result in zip(all_samples(), results, strict=True):
        said = " ".join(line.text for line in sample.reference)
        assert word_error_rate(said, result["text"]) < 0.25, result["text"]
        assert result["metadata"]["unique_speakers"] == 2
