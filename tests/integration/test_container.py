"""The image of deploy/Dockerfile, built and run under the flags of docs/deployment.md. Minutes, and 30 GB on disk."""

from __future__ import annotations

import os
import re
import shlex
import time
from pathlib import Path

import pytest

from tests.support import containers
from tests.support.containers import podman

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
START_S = 120
STOP_S = 30


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Built here, unless there is one that is to be tested in its place."""
    containers.require()
    if made := os.environ.get("IMAGE_UNDER_TEST"):
        yield made
        return
    base, tag = "localhost/ml-server-test:base", "localhost/ml-server-test:cpu"
    try:
        containers.debian(base, tmp_path_factory.mktemp("debian"))
        containers.build(tag, base=base, target="cpu")
        yield tag
    finally:
        podman("rmi", "--force", tag, base, check=False)
        podman("image", "prune", "--force", check=False)


def documented_flags() -> list[str]:
    """Those of the page's `docker run`, but for the published port: the container gets no network."""
    command = PAGE.split("docker run ", 1)[1].split("ml-server:cpu\n", 1)[0]
    flags = shlex.split(command.replace("\\\n", " "))
    at = flags.index("-p")
    return [*flags[:at], *flags[at + 2 :]]


def test_the_image_serves_confined(image):
    """Healthy by its own check and models, a sample through the whole graph, root of nothing, gone within D7's 30 s."""
    with containers.running(image, *documented_flags()) as name:
        deadline = time.monotonic() + START_S
        while "unhealthy" in podman("healthcheck", "run", name, check=False):
            assert containers.state(name)["Running"], podman("logs", name)
            assert time.monotonic() < deadline, podman("logs", name)
            time.sleep(1)
        status = podman("exec", name, "cat", "/proc/1/status")
        assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert "Read-only file system" in podman("exec", name, "touch", "/opt/ml-server/x", check=False)
        assert "as the lock says" in podman("exec", name, "ml-server", "models", "verify")
        media = "/opt/ml-server/lib/python3*/site-packages/serve_app/_examples/media"
        said = podman("exec", name, "sh", "-c", f"ml-server submit {media}/clear.flac --wait", timeout=300)
        assert "happy" in said
        assert "completed" in podman("exec", name, "ml-server", "jobs")
        stopped = time.monotonic()
        podman("stop", name)
        assert time.monotonic() - stopped < STOP_S
        assert containers.state(name)["ExitCode"] == 0, podman("logs", name)
