"""Prometheus's own tool, which knows its language: Debian's package `prometheus` has it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

PROGRAM = "promtool"


def require(program: str = PROGRAM) -> None:
    """Skip where it is not installed, and fail where that would leave it untested: with CI=true."""
    if shutil.which(program) is None:
        reason = f"no {program} here: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def promtool(*arguments: str) -> str:
    """What it says; fails the test where it finds fault."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
