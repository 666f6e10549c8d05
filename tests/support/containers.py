"""Images and containers by podman, on a Debian made here from the machine's own package sources: no registry is asked.

Builds run in a chroot and containers by runc, which works without systemd and on hybrid cgroups. No docker, no daemon.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TOOLS = ("podman", "runc", "debootstrap")
LIMIT = 16_384
"""Of files and processes: podman's own are more than some machines allow."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def require() -> None:
    """Skip where a tool is missing, or the right to use them."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"wants root and {', '.join(missing or TOOLS)}")


def podman(*arguments: str | Path, check: bool = True, timeout: float = 120) -> str:
    """Run a command; what it says."""
    done = subprocess.run(
        ["podman", *arguments],
        check=False,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and done.returncode:
        pytest.fail(f"podman {arguments[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def debian(tag: str, folder: Path) -> None:
    """An image of the Debian of this machine's package sources, which trusts whom this machine trusts."""
    sources = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    site, release = next(line.split() for line in sources if line and "-" not in line.split()[1])
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", release, folder, site],
        check=True,
        capture_output=True,
    )
    shutil.copy(CERTIFICATES, folder / CERTIFICATES.relative_to("/"))
    trust = [f"--change=ENV {name}={CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT")]
    with subprocess.Popen(["tar", "--directory", folder, "--create", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["podman", "import", *trust, "-", tag], stdin=tar.stdout, check=True, capture_output=True)


def build(tag: str, *, base: str, target: str) -> None:
    """The image of deploy/Dockerfile, as `docker build` would make it."""
    here = ("--isolation=chroot", "--network=host", "--layers=false", "--format=docker")
    what = (
        f"--file={ROOT / 'deploy' / 'Dockerfile'}",
        f"--build-arg=BASE={base}",
        f"--target={target}",
        f"--tag={tag}",
    )
    podman("build", *here, *what, ROOT, timeout=3000)


@contextmanager
def running(image: str, *flags: str) -> Iterator[str]:
    """A container without a network; its name."""
    allowed = [f"--ulimit={name}={LIMIT}:{LIMIT}" for name in ("nofile", "nproc")]
    name = (
        podman("run", "--detach", "--runtime=runc", "--network=none", *allowed, *flags, image).strip().split("\n")[-1]
    )
    try:
        yield name
    finally:
        podman("rm", "--force", "--volumes", name, check=False)


def state(container: str) -> dict:
    return json.loads(podman("inspect", container))[0]["State"]
