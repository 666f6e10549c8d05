"""The HTTP edge as one whole where Ray's own commands start the server, and an operator has set what the docs name."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import httpx
import pytest
import yaml

from serve_app import testing
from serve_app.api import proxy_guard
from serve_app.cli.child_process import ChildProcess, free_port
from tests.chaos.server import fakes_config
from tests.support.commands import BIN, a_ray, call, short_folder
from tests.support.process import eventually, wait_healthy

pytestmark = pytest.mark.full

POST = "/api/upload-video/process-video"
JOBS = "/api/upload-video/jobs"
PROXY, CLIENT, NAME = "127.0.0.2", "10.1.2.3", "ml.example.com"
MAX_BYTES = 20_000
GUARD = {proxy_guard.VARIABLE: proxy_guard.IMPORT_PATH, proxy_guard.MAX_BYTES_VARIABLE: str(MAX_BYTES)}
PRODUCTION = {
    "ML_SERVER_PROFILE": "production",
    "ML_SERVER_BACKEND_URL": "https://backend.example",
    "ML_SERVER_AUTH__NETWORKS": '["10.0.0.0/8"]',
    "ML_SERVER_AUTH__PROXIES": f'["{PROXY}/32"]',
    "ML_SERVER_AUTH__HOSTS": f'["{NAME}"]',
}
"""The proxy's clients alone are let in: neither this machine nor the proxy itself."""


@contextmanager
def deployed(folder, environment):
    """`serve deploy` of a file: the server's URL."""
    port = free_port()
    config = fakes_config()
    config["http_options"]["port"] = port
    config["applications"][0]["args"] = {}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = call(str(BIN / "serve"), "deploy", str(path), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    yield f"http://127.0.0.1:{port}"


@contextmanager
def run(folder, environment):
    """`serve start`, for `serve run` takes no port, and `serve run` of the builder: the server's URL."""
    port = free_port()
    started = call(str(BIN / "serve"), "start", "--http-host", "127.0.0.1", "--http-port", str(port), **environment)
    assert started.returncode == 0, started.stdout + started.stderr
    command = [str(BIN / "serve"), "run", "--name", "ml-server", testing.IMPORT_PATH]
    with ChildProcess(command, log_path=folder / "run.log", environment=environment):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def asking(url):
    """A function that sends a request from an address of this machine."""
    clients = {}

    def ask(path=JOBS, *, peer=PROXY, method="GET", content=None, **headers):
        if peer not in clients:
            transport = httpx.HTTPTransport(local_address=peer)
            clients[peer] = httpx.Client(base_url=url, transport=transport, trust_env=False, timeout=30)
        named = {"x-forwarded-for": CLIENT} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = clients[peer].request(method, path, headers=named, content=content)
        code = answer.json()["error"]["code"] if answer.is_error else None
        return answer.status_code, code

    yield ask
    for client in clients.values():
        client.close()


@pytest.mark.parametrize("served", [deployed, run], ids=["serve deploy", "serve run"])
def test_a0_r1_the_whole_edge_under_ray_s_own_commands(served):
    """A0, A1, R1: a named proxy alone is believed, other hosts are refused, heads and bodies are bounded."""
    with (
        short_folder() as folder,
        a_ray(folder, **GUARD, **PRODUCTION) as environment,
        served(folder, environment) as url,
    ):
        wait_healthy(url, lambda: True, folder / "ray.log")
        with asking(url) as ask:
            assert ask() == (200, None)
            assert ask(host=NAME) == (200, None)
            assert ask(host="attacker.example") == (403, "HOST_NOT_ALLOWED")
            assert ask(x_forwarded_for="8.8.8.8") == (403, "CLIENT_NOT_ALLOWED")
            assert ask(x_forwarded_for=f"{CLIENT}, 8.8.8.8") == (403, "CLIENT_NOT_ALLOWED")
            for elsewhere in ("127.0.0.1", "127.0.0.3"):
                assert ask(peer=elsewhere) == (403, "CLIENT_NOT_ALLOWED")
            assert ask(a="a" * 70_000) == (431, "HEADERS_TOO_LARGE")
            too_much = (b"x" * 1000 for _ in range(MAX_BYTES // 1000 + 1))  # in chunks, without a length
            assert ask(POST, method="POST", content=too_much) == (413, "REQUEST_TOO_LARGE")
            assert ask(POST, method="POST", content=b"x" * MAX_BYTES) == (400, "INVALID_REQUEST")


def test_a1_production_without_the_guard_is_not_healthy_under_serve_deploy():
    """A1: an operator who forgot the variable sees 503 at `/health`, with the part's name, and nothing else failing."""
    with short_folder() as folder, a_ray(folder, **PRODUCTION) as environment, deployed(folder, environment) as url:

        def failing():
            with suppress(httpx.HTTPError, ValueError):  # Serve's proxy answers as text where no app is ready
                answer = httpx.get(f"{url}/health", timeout=5, trust_env=False)
                return answer.status_code, answer.json().get("failing")

        eventually(failing, lambda seen: seen == (503, ["proxy_guard"]), within_s=180)
