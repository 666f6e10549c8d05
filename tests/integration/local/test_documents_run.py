"""The documents' commands and examples, run as they stand against the real server; only addresses are replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from serve_app.cli.child_process import ChildProcess, free_port
from tests.integration.local.conftest import WEBHOOK_SECRET
from tests.support.pages import ROOT, page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.process import RunningServer

pytestmark = pytest.mark.timeout(900)  # the first test starts the shared server, and a busy machine takes minutes
STOP = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"


def run(script: str, server: RunningServer, ports: dict[str, int], **environment: str) -> str:
    """Run commands of a page in the repository, with its addresses replaced; what they print."""
    for shown, port in ports.items():
        script = script.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}").replace(
            f"http.server {shown}", f"http.server {port}"
        )
    script = script.replace("http://127.0.0.1:8080", server.url)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", STOP + script],
        env=os.environ | {"PATH": path, "MODEL_SERVER_URL": server.url, "NO_PROXY": "127.0.0.1"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def videos() -> Iterator[int]:
    """The samples over HTTP, as the quick start serves them; the port."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", "examples/media"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_for(f"http://127.0.0.1:{port}")
        yield port
        process.terminate()


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url, trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(url)


def test_the_quick_start_runs(server, videos):
    """Each command of the second terminal: the health, a submitted file with its transcript, the list, the curls."""
    text = page("docs/quick-start.md")
    shown = run(text.block(". .venv").content.replace(". .venv/bin/activate\n", ""), server, {})
    assert '"accepting":true' in shown
    assert "SPEAKER_00" in shown
    posts = text.block("python -m http.server").content
    served = posts.splitlines()[0].replace(" &", "")
    assert served == "python -m http.server 9000 --bind 127.0.0.1 --directory examples/media"
    shown = run(posts.partition("\n")[2], server, {"9000": videos})
    assert '"status":"processing"' in shown
    assert "queued" in shown
    assert server.wait("test-123", within_s=120)["status"] == "completed"


def test_the_readmes_requests_are_taken(server, videos):
    """The README's curls: a job and its status, here of a video that is not there."""
    script = page("README.md").block("curl -X POST").content
    shown = run(script, server, {"9000": videos, "8000": free_port()})
    assert shown.count('"job_id":"550e8400-e29b-41d4-a716-446655440000"') == 2
    assert server.wait("550e8400-e29b-41d4-a716-446655440000")["error_code"] == "DOWNLOAD_ERROR"


def test_from_a_fresh_project_to_a_verified_callback_in_ten_lines(server, videos, tmp_path):
    """The guide's ten lines, started as it says: progress and the result come, and a forged callback is refused."""
    text = page("docs/integration.md")
    (tmp_path / "backend.py").write_text(text.block("# backend.py\n").content)
    assert WEBHOOK_SECRET in text.block("export ML_SERVER_WEBHOOK_SECRETS").content
    *exports, start, curl = text.block("export MODEL_SERVER_URL").content.splitlines()
    port = free_port()
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(exports)))
    assert environment["ML_WEBHOOK_SECRET"] == WEBHOOK_SECRET
    environment["MODEL_SERVER_URL"] = server.url
    environment["FASTAPI_BASE_URL"] = environment["FASTAPI_BASE_URL"].replace("8000", str(port))
    environment |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, *start.replace("8000", str(port)).split()[1:]]
    log = tmp_path / "backend.log"
    with ChildProcess(command, log_path=log, environment=environment):
        wait_for(f"http://127.0.0.1:{port}/docs")
        job_id = run(curl, server, {"8000": port, "9000": videos}).strip().strip('"')
        server.wait(job_id, within_s=120)
        for _ in range(100):
            if f"{job_id} completed 100 " in log.read_text():
                break
            time.sleep(0.1)
        heard = [line.split() for line in log.read_text().splitlines() if line.startswith(job_id)]
        forged = httpx.post(
            f"http://127.0.0.1:{port}/api/upload-video/result",
            json={"job_id": job_id, "status": "failed", "progress": 0},
            headers={"webhook-id": "m", "X-ML-Sequence": "99999"},
            trust_env=False,
        )
        tested = run(text.block("curl http://127.0.0.1:8080/health").content, server, {"8000": port})
    assert forged.status_code == 401
    assert heard[0][1] == "processing"
    assert heard[-1][1:3] == ["completed", "100"]
    assert len(heard[-1]) > 10, heard[-1]
    assert job_id[:8] in tested
